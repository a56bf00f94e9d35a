"""Images that stations boot: ``build`` makes one, ``store`` keeps them by digest, ``publish``
decides which one stations get. Imports ``ets.plan``, ``ets.facts``, ``ets.host`` and below.
"""
