"""sparseloom"""
