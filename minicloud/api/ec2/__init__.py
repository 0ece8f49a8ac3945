"""EC2 operations: each function takes parsed parameters, makes one call into cloud/, and renders its result.

Parameters and results are dicts by botocore's member names; absent members are left out, None members are dropped.
"""
