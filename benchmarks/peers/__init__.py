"""What Thriftbit is compared with. Used by benchmarks and tests only."""
