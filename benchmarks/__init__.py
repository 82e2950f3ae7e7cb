"""What Spoorway costs, measured on the machine at hand, with the peer beside it: `python -m benchmarks`.

Measures the product through its own doors; changes nothing in it and is no part of the installed package. Linux only: it
pins processes to cores and reads /proc.
"""
