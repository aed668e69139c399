"""What users declare: ScalingPolicy and AcceleratorPool documents -> the core's `Policies`.

Start reading at `schema` (the fields), then `parse`. Everything here is pure: text in, values out.
"""

from autoscaler.policy.checks import Resource
from autoscaler.policy.errors import PolicyError
from autoscaler.policy.parse import parse_policies, parse_resources, to_policies
from autoscaler.policy.schema import AcceleratorPool, ScalingPolicy

__all__ = [
    "AcceleratorPool",
    "PolicyError",
    "Resource",
    "ScalingPolicy",
    "parse_policies",
    "parse_resources",
    "to_policies",
]
