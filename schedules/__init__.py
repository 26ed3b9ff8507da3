"""What is kept warm, and when. Each file reads as a table: one decorator line is a job's whole policy.

| file          | what                        | when                                             |
|---------------|-----------------------------|--------------------------------------------------|
| critical.py   | portfolios                  | before they expire, as long as somebody reads    |
| portfolios.py | settings, portfolios        | each minute, for whoever looked in the last hour |
| analytics.py  | trade analytics, risk       | each two minutes, for those read most            |
| market.py     | market data of every symbol | each minute of the trading day, and after it     |
| reference.py  | what can be traded          | daily, and within its hour                       |
| statistics.py | sums over all trades        | each two minutes                                 |
| sweeping.py   | what is dead, removed       | hourly                                           |

Every worker sees every fire time; one of them runs it. Running twice is safe: what is fresh is passed over.
"""
