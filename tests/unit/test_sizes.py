import pytest

from thriftbit.sizes import describe_bytes


@pytest.mark.parametrize(
    ("size_bytes", "described"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (4_130_000_000, "4.13 GB"),
        (28_000_000_000, "28.0 GB"),
        (1 << 60, "1153 PB"),
    ],
)
def test_three_significant_digits(size_bytes: int, described: str) -> None:
    assert describe_bytes(size_bytes) == described
