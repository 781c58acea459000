"""The network: its numbers and blocks, Hiera in PyTorch, and the masked autoencoder that it is pretrained as."""
