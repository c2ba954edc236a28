"""Guided mode: `luma` alone on a terminal asks, answers, and shows the command that answers the same."""
