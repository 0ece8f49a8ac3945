"""Filters of DescribeInstanceCreditSpecifications (EC2 API reference, "Filter.N")."""

from __future__ import annotations

from minicloud.store import schema
from minicloud.store.search import FilterSet, text

CREDIT_SPECIFICATIONS = FilterSet({"instance-id": text(schema.instances.c.id)})
