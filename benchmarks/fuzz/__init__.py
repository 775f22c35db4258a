"""Random problems over all that the library accepts, each judged by code of its own."""
