"""Twisted: finds the hosts of a target, asks them, and performs what `targets` decides."""
