"""`python -m thriftbit.measurement`: the table of quantities in docs/measurements.md."""

from thriftbit.measurement.quantities import QUANTITIES

print("| row | unit | better | what it means |")
print("| --- | --- | --- | --- |")
for name, quantity in QUANTITIES.items():
    print(f"| `{name}` | {quantity.unit} | {quantity.better or '–'} | {quantity.meaning} |")
