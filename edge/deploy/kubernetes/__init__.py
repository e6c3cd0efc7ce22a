"""A site on Kubernetes: manifests for kubectl, and the AWS role of its pods."""
