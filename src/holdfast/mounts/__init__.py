"""The same pipe inside other people's clients: they see one whole stream of events, and keep everything else they have.

Each mount needs the library that it is for, and is imported when it is asked for.
"""
