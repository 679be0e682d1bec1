"""A proxy before a provider's API: records its traffic, replays it, and makes it fail on purpose.

`cassette` is what is written and read, `scrub` what keeps secrets out of it, `shelf` finds the
recorded answer; `plan` is the file of faults, `chaos` decides which request gets which; `relay`
answers a request, and `running` opens and closes the whole.
"""
