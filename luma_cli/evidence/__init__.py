"""What is known about accuracy: published results, imported ones and own runs, each on its own scale."""
