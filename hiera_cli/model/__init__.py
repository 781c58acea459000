"""The network: its numbers and blocks, and Hiera in PyTorch."""
