"""Delivers results to one destination until the destination has stored them."""
