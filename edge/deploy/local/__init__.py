"""A site on the Docker engine of this machine: its containers, as the agent of ECS runs them."""
