"""What a page shows and does: questions, answers as they are written, votes. Knows nothing of HTTP.

Everything is kept here and not in the page, so that a reload, a second window or a browser that was closed lose
nothing. Changes are numbered: who knows everything up to one revision asks for what is newer.

The place of the original in a blind round is a fair coin of its own each time. Balanced by blocks it would be known in
the last round of a block.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from thriftbit.errors import UsageError
from thriftbit.side_by_side import votes
from thriftbit.side_by_side.lineup import Contender
from thriftbit.side_by_side.rounds import Answer, Round, view
from thriftbit.side_by_side.votes import Tally, Vote
from thriftbit.side_by_side.wording import result
from thriftbit.side_by_side.writing import Manner, Writers, Written
from thriftbit.sizes import describe_bytes

LENGTHS = (100, 200, 400)  # of an answer in tokens, to choose from
MOST_TEMPERATURE = 2.0
MOST_QUESTION = 20_000  # characters
HOW = {
    "in turn": "They answer in turn, so that neither slows the other.",
    "at once": "They answer at the same time and share this computer: alone, each would be faster.",
    "one loaded at a time": "Together they do not fit into memory, so each is loaded, answers and is let go again.",
}
_MOST_SEED = 2**31 - 1


class Session:
    """lineup: the original first. writers: of the same files in the same order."""

    def __init__(self, lineup: Sequence[Contender], writers: Writers, manner: Manner) -> None:
        self.lineup = tuple(lineup)
        self.rounds: list[Round] = []
        self.is_closed = False
        self._writers = writers
        self._manner = manner
        self._chance = random.SystemRandom()
        self._lock = threading.RLock()
        self._revision = 0
        self._listeners: list[Callable[[], object]] = []
        self._worker: threading.Thread | None = None
        self._votes, self.bad_lines = votes.read()
        self._votes_before = len(self._votes)

    def ask(
        self,
        question: str,
        *,
        blind: bool = False,
        against: int = 1,
        temperature: float = 0.0,
        longest: int = LENGTHS[1],
    ) -> Round:
        """Has all answer, or in a blind round the original and one other (`against`, its number). Raises UsageError for
        what makes no sense and while another question is being answered."""
        if not question.strip() or len(question) > MOST_QUESTION:
            raise UsageError(f"a question has up to {MOST_QUESTION:,} characters, and more than spaces")
        if not 0 <= temperature <= MOST_TEMPERATURE:
            raise UsageError(f"the temperature goes from 0 to {MOST_TEMPERATURE:g}")
        if longest not in LENGTHS or not 0 < against < len(self.lineup):
            raise UsageError("there is no such length or file to compare with")
        with self._lock:
            if self.is_busy or self.is_closed:
                raise UsageError("the question before is still being answered: wait, or stop it")
            models = self._blind_order(against) if blind else range(len(self.lineup))
            asked = Round(
                number=len(self.rounds) + 1,
                question=question,
                blind=blind,
                temperature=temperature,
                seed=self._chance.randint(0, _MOST_SEED),
                answers=[Answer(model) for model in models],
            )
            self.rounds.append(asked)
            self._changed(asked)
            self._worker = threading.Thread(target=self._answer, args=(asked, longest), daemon=True)
            self._worker.start()
        return asked

    def stop(self) -> None:
        """Ends the answers that are being written, if any are."""
        with self._lock:  # so that the last answer does not end meanwhile, and the next question is stopped instead
            if self.is_busy:
                self._writers.stop()

    def vote(self, number: int, picked: int | None) -> None:
        """number: of the round. picked: the place of the answer that is taken for the original, 0 or 1; None for "I
        can't tell". Kept first, then told. Raises UsageError if there is nothing to vote on."""
        with self._lock:
            voted = self.rounds[number - 1] if 0 < number <= len(self.rounds) else None
            if voted is None or not (voted.is_secret and voted.has_ended):
                raise UsageError("there is nothing to vote on, or it was voted on already")
            if picked not in (None, 0, 1):
                raise UsageError("a vote is for the first answer, for the second, or for neither")
            right = picked is not None and voted.answers[picked].model == 0
            words = "cannot tell" if picked is None else "original" if right else "other"
            original, other = self.lineup[0], self.lineup[max(answer.model for answer in voted.answers)]
            vote = Vote(
                original.content,
                other.content,
                original.subject.name,
                other.subject.name,
                words,
                voted.temperature,
                datetime.now(UTC).isoformat(timespec="seconds"),
            )
            votes.append(vote)
            self._votes.append(vote)
            voted.picked = words
            voted.result = self._result(other, self._votes)
            self._changed(voted)

    def results(self) -> list[str]:
        """Return a sentence for each pair that was voted on in this session,
        and one for all sessions if there were more."""
        sentences = []
        for other in self.lineup[1:]:
            now = self._tally(other, self._votes[self._votes_before :])
            if now.votes:
                sentences.append(result(now, self.lineup[0].label, other.label))
            if now.votes and self._tally(other, self._votes).votes > now.votes:
                sentences.append(f"With earlier sessions: {self._result(other, self._votes)}")
        return sentences

    @property
    def is_busy(self) -> bool:
        return bool(self.rounds) and not self.rounds[-1].has_ended

    def known(self) -> dict[str, Any]:
        """Return what does not change, for the page."""
        return {
            "files": [
                {
                    "label": file.label,
                    "name": file.subject.name,
                    "size": describe_bytes(file.subject.size_bytes),
                    "bits": f"{file.subject.bits_per_weight:.2f}",
                }
                for file in self.lineup
            ],
            "how": HOW[self._manner],
            "lengths": LENGTHS,
        }

    def changes(self, since: int) -> tuple[int, dict[str, Any]]:
        """Return the revision now, and for the page whatever is newer than the one it knows."""
        with self._lock:
            return self._revision, {
                "busy": self.is_busy,
                "tallies": [self._result(other, self._votes) for other in self.lineup[1:]],
                "rounds": [view(each, self.lineup) for each in self.rounds if each.revision > since],
            }

    def listen(self, listener: Callable[[], object]) -> Callable[[], None]:
        """listener: is told that something is new, from any thread. Returns ends that."""
        with self._lock:
            self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        """Ends what is being written, and lets pages go."""
        self.is_closed = True
        self.stop()
        if self._worker is not None:
            self._worker.join()
        with self._lock:
            self._tell()

    def _answer(self, asked: Round, longest: int) -> None:
        def started(model: int) -> None:
            with self._lock:
                asked.of_model(model).state = "writing"
                self._changed(asked)

        def wrote(model: int, text: str) -> None:
            with self._lock:
                asked.of_model(model).text += text
                self._changed(asked)

        def ended(model: int, written: Written) -> None:
            with self._lock:
                asked.of_model(model).end(written)
                self._changed(asked)

        models = [answer.model for answer in asked.answers]
        settings = {"temperature": asked.temperature, "seed": asked.seed, "max-tokens": longest}
        try:
            self._writers.write(models, asked.question, settings, on_start=started, on_text=wrote, on_end=ended)
        finally:
            for answer in asked.answers:
                if answer.state != "ended":  # a bug of ours, whose traceback goes to the terminal
                    ended(answer.model, Written(answer.text, "failed", "Thriftbit failed; the terminal says how"))

    def _blind_order(self, against: int) -> list[int]:
        return [0, against] if self._chance.random() < 0.5 else [against, 0]

    def _tally(self, other: Contender, cast: Sequence[Vote]) -> Tally:
        return votes.tally(cast, self.lineup[0].content, other.content)

    def _result(self, other: Contender, cast: Sequence[Vote]) -> str:
        return result(self._tally(other, cast), self.lineup[0].label, other.label)

    def _changed(self, changed: Round) -> None:
        self._revision += 1
        changed.revision = self._revision
        self._tell()

    def _tell(self) -> None:
        for listener in list(self._listeners):
            listener()
