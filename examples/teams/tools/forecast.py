"""The tool of this example."""


def forecast(city: str, days: int = 1) -> dict[str, object]:
    """Tell the weather of the next days.

    Args:
        city: Its name in English.
        days: At most ten.
    """
    return {"city": city, "days": days, "sky": "snow" if city == "Oslo" else "sun"}
