"""What can be measured: cards, names, the timm index, rules and costs. Imports neither torch nor timm."""
