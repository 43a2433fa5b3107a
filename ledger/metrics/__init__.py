"""What an operator watches: counted with the changes themselves, and told to Prometheus."""
