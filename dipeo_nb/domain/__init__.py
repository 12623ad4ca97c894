"""Frozen data and every port. No I/O, no import of any other room but `errors`."""
