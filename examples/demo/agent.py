"""A small support agent for a lamp shop: rules, a table of orders, and a calculator.

It stands for whatever you want to measure. Muster calls `answer` in the process, once a question;
the conversation so far is in `request.messages`.
"""

from __future__ import annotations

import ast
import json
import operator
import re

from muster import ProviderRequest

ORDERS = {
    "A-1042": {"item": "desk lamp", "quantity": 2, "status": "shipped", "days": 2},
    "A-1077": {"item": "floor lamp", "quantity": 1, "status": "packing", "days": 5},
    "B-2001": {"item": "lantern", "quantity": 6, "status": "delivered", "days": 0},
}
PRICES = {"desk lamp": 24.50, "floor lamp": 89.00, "lantern": 12.25}
FACTS = {
    r"\b(hours|open)\b": "We are open Monday to Friday from 9:00 to 17:00, and closed on Sundays.",
    r"\b(returns?|refunds?|send .* back)\b": "You can return a lamp within 30 days, free.",
    r"\b(ship|deliver)\w*": "Shipping takes 3 to 5 days and costs 4.90 EUR.",
    r"\bwarranty\b": "Every lamp has a warranty of 2 years.",
    r"\b(phone|e-?mail|contact)\b": "Write to help@lamps.example or call +49 30 1234567.",
}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
}


def answer(request: ProviderRequest) -> str:
    """The agent's reply to the last question of a conversation."""
    question = request.question
    order = find_order(question) or find_order(earlier(request))
    if "json" in question.lower() and order:
        return json.dumps({"order": order, **ORDERS[order]})
    if re.search(r"\b(order|parcel|it)\b", question, re.IGNORECASE) and order:
        return order_status(order)
    if "order" in question.lower():
        return "Please tell me the number of your order, such as A-1042."
    if price := total_price(question):
        return price
    if (result := calculate(question)) is not None:
        return f"The answer is {result:,.10g}."
    for pattern, fact in FACTS.items():
        if re.search(pattern, question, re.IGNORECASE):
            return fact
    return "I am sorry, I do not know that. Please write to help@lamps.example."


def earlier(request: ProviderRequest) -> str:
    """What was said before the question."""
    return "\n".join(message.text for message in request.messages)


def find_order(text: str) -> str | None:
    """The last known order number in the text."""
    numbers = [number.upper() for number in re.findall(r"\b[a-z]-\d{4}\b", text, re.IGNORECASE)]
    known = [number for number in numbers if number in ORDERS]
    return known[-1] if known else None


def order_status(order: str) -> str:
    """Where an order is."""
    entry = ORDERS[order]
    when = f"and arrives in {entry['days']} days" if entry["days"] else "to your door"
    return f"Order {order} ({entry['quantity']} x {entry['item']}) is {entry['status']} {when}."


def total_price(question: str) -> str | None:
    """What some lamps cost: `3 desk lamps`."""
    for item, price in PRICES.items():
        found = re.search(rf"(?:(\d+) )?{item}s?\b", question, re.IGNORECASE)
        if found and re.search(r"cost|price|pay|how much", question, re.IGNORECASE):
            count = int(found[1] or 1)
            return f"{count} x {item} at {price:.2f} EUR makes {count * price:,.2f} EUR."
    return None


def calculate(question: str) -> float | None:
    """The value of the arithmetic expression in the question."""
    text = question.replace("×", "*").replace(",", "")
    text = re.sub(r"(\d+(?:\.\d+)?)\s*% of", r"\1 / 100 *", text)
    expressions = re.findall(r"[-(\d][\d\s.+*/()-]*[\d)]", text)
    for expression in sorted(expressions, key=len, reverse=True):
        if re.search(r"\d\s*[-+*/]", expression):
            try:
                return evaluate(ast.parse(expression.strip(), mode="eval").body)
            except (SyntaxError, ValueError, ZeroDivisionError):
                continue
    return None


def evaluate(node: ast.expr) -> float:
    """The value of a parsed expression of numbers and `+ - * /`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    if isinstance(node, ast.UnaryOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](evaluate(node.operand))
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        return OPERATORS[type(node.op)](evaluate(node.left), evaluate(node.right))
    raise ValueError("not arithmetic")
