"""The front door: from a request to one call into cloud/, and from its result to an answer.

`app` is the signed endpoint that AWS's tools use, `door` the unix socket of minicloud's own command; both run the same
operation table (`operations`), so they cannot drift apart. Refuses to decide anything: that is cloud/.
"""
