"""What is kept warm, and when. Each file reads as a table: one decorator line is a job's whole policy.

| file          | what                        | when                                                  |
|---------------|-----------------------------|-------------------------------------------------------|
| critical.py   | portfolios                  | before they expire, as long as somebody reads         |
| portfolios.py | settings, portfolios        | each minute, those read often in the last half hour   |
| analytics.py  | trade analytics, risk       | each two minutes, those read often                    |
| market.py     | market data                 | each minute of the trading day, those read often; all |
|               |                             | of them once, when the day's bars are in              |
| reference.py  | what can be traded          | daily, and within its hour                            |
| statistics.py | sums over all trades        | each two minutes                                      |
| sweeping.py   | what is dead, removed       | hourly                                                |

Every worker sees every fire time; one of them runs it. Running twice is safe: what is fresh is passed over.

What pays was measured on modelled traffic of 400 users (`python -m benchmarks warming`): the database's work beside
that of warming nothing, and how much of what was loaded somebody read before it expired or was invalidated.

| warmed                                  | database | read   | users wait |
|-----------------------------------------|----------|--------|------------|
| the top 200 of each view, without floor | +7,880 % |  0.6 % | -34 %      |
| what was read within the hour           | +1,480 % |  1.8 % | -18 %      |
| the top 200, read once lately           |   +176 % |  2.7 % |  -4 %      |
| ahead of its end, while it is read      |    +97 % |  6.4 % |  -3 %      |
| the top 200, read three times lately    |    +19 % |  6.1 % |  -1 %      |
| the top 200, read ten times lately      |   +2.2 % | 14.7 % |   0        |

So only what is read often is warmed by the clock, and only portfolios, for which nobody shall wait, ahead of their end.
A read half an hour ago counts half.
"""

OFTEN = 10.0
"""Reads lately from which on a call is warmed."""
