"""Where a processor runs: images, hosts, and the cloud that schedules it."""
