"""What contestants and features of the load model are, in plain words, for people who ask why."""

import re

WORDS = (
    (r"lag_0", "the newest step"),
    (r"lag_(\d+)", "the load {0} steps before the newest"),
    (r"level_(\d+)", "mean of the last {0} steps"),
    (r"max_window", "largest step of the last day"),
    (r"max_(\d+)", "largest of the last {0} steps"),
    (r"min_(\d+)", "smallest of the last {0} steps"),
    (r"spread_(\d+)", "how much the last {0} steps scattered"),
    (r"jump_(\d+)", "mean change from step to step over the last {0} steps"),
    (r"zero", "how far the level is from nothing at all"),
    (r"noise", "how noisy single steps are, against the day's mean"),
    (r"noise_rise", "whether they have lately become noisier"),
    (r"noise_window", "how noisy they were over the last day"),
    (r"jump_age", "steps since the last jump"),
    (r"jump_size", "how large that jump was"),
    (r"age_steps", "steps since the last value that is known"),
    (r"known_ratio", "how much of the last day is known"),
    (r"lead", "how far ahead the forecast looks"),
    (r"yesterday", "same time yesterday"),
    (r"yesterday_smooth", "around the same time yesterday"),
    (r"yesterday_rise", "how the load went on from here yesterday"),
    (r"yesterday_level", "the level at this time yesterday"),
    (r"yesterday_ratio", "same time yesterday, times how today compares with yesterday so far"),
    (r"rise_day", "how the load went on from here yesterday"),
    (r"rise_two_days", "how the load went on from here two days ago"),
    (r"rise_week", "how the load went on from here a week ago"),
    (r"week_ratio", "same time a week ago, times how today compares with then so far"),
    (r"week_smooth", "around the same time a week ago"),
    (r"week_rise", "how the load went on from here a week ago"),
    (r"week_level", "the level at this time a week ago"),
    (r"hour_ago", "the same minute of an earlier hour"),
    (r"hour_(sin|cos)", "time of day"),
    (r"anchor", "what the trees start from: the level, or an earlier day where the clock rules"),
    (r"trust_(day|week)", "how far the same time a {0} ago is taken at its word"),
    (r"miss_(day|week)", "how far the last day was from the same time a {0} before"),
    (r"hour_position", "minute of the hour: jobs begin on the hour"),
    (r"weekday", "day of the week"),
    (r"weekend", "Saturday or Sunday"),
    (r"level_seconds", "the span over which the level is taken"),
)

CONTESTANTS = {
    "last-value": "the load stays as the newest step was",
    "level-short": "it stays as the mean of the last three steps",
    "level": "it stays as the mean of the last quarter of an hour",
    "level-hour": "it stays as the mean of the last hour",
    "yesterday": "it is as it was yesterday at this time",
    "yesterday-ratio": "as yesterday at this time, times how today compares with yesterday so far",
    "last-week": "it is as it was a week ago at this time",
    "last-week-ratio": "as a week ago at this time, times how today compares with then so far",
    "level-and-yesterday": "halfway between the newest step and yesterday-ratio",
    "last-value-and-rise": "the newest step, and half of how the load went on from here yesterday",
    "smoothing": "exponential smoothing of the steps so far",
    "smoothing-and-rise": "that, and how the load went on from here yesterday",
    "by-the-clock": "the level, or the same time on an earlier day where that has proved right",
    "linear": "a global linear quantile regression",
    "local": "the global model, corrected by trees over this service's own history",
    "lightgbm": "the global model: trees over all services' histories",
    "blend": "a weighted mean of several, weighted by what held-out days showed",
}


def contestant_words(name: str) -> str:
    """Return what a contestant forecasts, or nothing where no words are known."""
    return CONTESTANTS.get(name, "")


def meaning(feature: str) -> str:
    """Return what a feature is, or nothing where no words are known."""
    for pattern, words in WORDS:
        found = re.fullmatch(pattern, feature)
        if found:
            return words.format(*found.groups())
    return ""
