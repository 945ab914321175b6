"""Prices in whole cents."""


def total(prices):
    """The sum of all prices."""
    result = 0
    for price in prices:
        result += price
    return result


def discounted(price, percent):
    """The price less a discount in per cent, rounded down."""
    return price * (100 - percent) // 100


def change(paid, price):
    """The coins that are given back, largest first."""
    left, coins = paid - price, []
    for coin in (50, 20, 10, 5, 2, 1):
        while left >= coin:
            coins.append(coin)
            left -= coin
    return coins
