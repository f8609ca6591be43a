"""Delivers results to one destination until the destination has taken them."""
