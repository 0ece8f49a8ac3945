"""Filters of DescribeImportSnapshotTasks and DescribeImportImageTasks (EC2 API reference, "Filter.N"). Of the first AWS
documents none; it takes the second's.
"""

from __future__ import annotations

from minicloud.store import schema
from minicloud.store.search import FilterSet, text

_import_tasks = schema.import_tasks.c

IMPORT_TASKS = FilterSet({"task-state": text(_import_tasks.state)}, tagged=_import_tasks.id)
