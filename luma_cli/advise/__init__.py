"""Evidence, predictions, budgets and the recommendation. Imports neither torch nor timm."""
