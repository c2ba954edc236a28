"""How error falls with parameters and image tokens, and what that says about spending compute."""
