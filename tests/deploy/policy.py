"""What commands ask of AWS, beside the policies that the documents print."""

import json
from pathlib import Path

from tests.deploy.aws import Aws

# The permission that a call takes where it is not called like the operation.
PERMISSIONS = {
    "DeleteBucket": ["s3:DeleteBucket"],
    "DeleteObjects": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    "GetBucketEncryption": ["s3:GetEncryptionConfiguration"],
    "GetBucketLifecycleConfiguration": ["s3:GetLifecycleConfiguration"],
    "GetCallerIdentity": [],
    "GetPublicAccessBlock": ["s3:GetBucketPublicAccessBlock"],
    "HeadBucket": ["s3:ListBucket"],
    "ListObjectVersions": ["s3:ListBucketVersions"],
    "PutBucketEncryption": ["s3:PutEncryptionConfiguration"],
    "PutBucketLifecycleConfiguration": ["s3:PutLifecycleConfiguration"],
    "PutPublicAccessBlock": ["s3:PutBucketPublicAccessBlock"],
    # What tags or roles in the request take besides.
    "PutMetricAlarm": ["cloudwatch:PutMetricAlarm", "cloudwatch:TagResource"],
    "CreateBucket": ["s3:CreateBucket", "s3:TagResource"],
    "CreateLogGroup": ["logs:CreateLogGroup", "logs:TagResource"],
    "CreateQueue": ["sqs:CreateQueue", "sqs:TagQueue"],
    "CreateRepository": ["ecr:CreateRepository", "ecr:TagResource"],
    "CreateRole": ["iam:CreateRole", "iam:TagRole"],
    "CreateService": ["ecs:CreateService", "ecs:TagResource", "iam:CreateServiceLinkedRole"],
    "CreateActivation": ["ssm:CreateActivation", "ssm:AddTagsToResource", "iam:PassRole"],
    "RegisterTaskDefinition": ["ecs:RegisterTaskDefinition", "ecs:TagResource", "iam:PassRole"],
}


def asked(aws: Aws) -> set[str]:
    """The permissions that the calls so far take."""
    return {
        action
        for call in aws.calls
        for action in PERMISSIONS.get(call.operation, [f"{call.service}:{call.operation}"])
    }


def granted(document: str) -> set[str]:
    """What the policy in a document allows."""
    text = Path(document).read_text().partition("<!-- policy -->\n```json\n")[2]
    policy = json.loads(text.partition("```")[0])
    allowed = [statement["Action"] for statement in policy["Statement"]]
    return {each for found in allowed for each in ([found] if isinstance(found, str) else found)}
