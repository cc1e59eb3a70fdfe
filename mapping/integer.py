"""x"""
from mapping.exhaustive import exhaustive as integer
