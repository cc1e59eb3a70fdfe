"""What to compute: graphs, sparsity, front ends, zoo and pruning."""
