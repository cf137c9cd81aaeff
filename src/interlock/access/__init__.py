"""Who comes in besides the accounts of this machine: tokens, and who stands behind them."""
