"""The report: a pure renderer over what a run wrote down. Training code never imports it."""
