import os

# Two threads on cores that others use too wait for each other most of the time, and tiny models need only one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
