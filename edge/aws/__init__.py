"""What talks to AWS shares: clients that are made late, and what an error means."""

from edge.aws.service import AwsService, region_of_arn
from edge.aws.verdict import Target, Verdict, WebPage, classify, classify_code

__all__ = [
    "AwsService",
    "Target",
    "Verdict",
    "WebPage",
    "classify",
    "classify_code",
    "region_of_arn",
]
