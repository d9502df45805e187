"""cisdriver: hardened Amazon EKS node images from one command."""
