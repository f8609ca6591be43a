"""Methods: each way from volumes on one grid to regions, its card, its weights, and which one fits an exam."""
