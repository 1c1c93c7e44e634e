"""Captions of scenes: compositional sentences with wording variants, translations, and near-duplicates."""

from __future__ import annotations

import numpy as np

from curate.demo.render import Scene, Thing

LANGUAGES = ("de", "fr", "es", "zh")

_FRAMES = ("{}", "{}", "{}", "a picture of {}", "an image showing {}", "there is {}", "{}, drawn digitally", "photo: {}")
_RELATIONS = {
    "left": ("left of", "to the left of"),
    "right": ("right of", "to the right of"),
    "above": ("above", "over"),
    "below": ("below", "under"),
}
_THIRD = {
    "below": ("{} below them", "{} underneath both"),
    "above": ("{} above them", "{} on top of both"),
    "left": ("{} left of them", "{} to the left of both"),
    "right": ("{} right of them", "{} to the right of both"),
}
_SIZE_WORDS = {"small": ("small", "little"), "big": ("big", "large")}


def caption(scene: Scene, random: np.random.Generator) -> str:
    """A true English caption: which things, and how they stand; size and background are named in some of them."""
    with_size = bool(random.integers(0, 2))
    phrases = [_phrase(thing, random, with_size) for thing in scene.things]
    text = phrases[0]
    if scene.relation:
        text += f" {_pick(_RELATIONS[scene.relation], random)} {phrases[1]}"
    if scene.third:
        text += ", with " + _pick(_THIRD[scene.third], random).format(phrases[2])
    if random.integers(0, 4) == 0:
        text += f" on a {scene.background} background"
    return _pick(_FRAMES, random).format(text)


def near_duplicate(text: str, random: np.random.Generator) -> str:
    """The same sentence as a careless second author would write it; always another string."""
    edits = (text.capitalize() + ".", text + "!", text.upper(), f"{text} (2)", text.replace("a ", "one ", 1), f" {text}  ")
    first = int(random.integers(0, len(edits)))
    return next(edit for edit in edits[first:] + edits[:first] if edit != text)


def translated(scene: Scene, language: str) -> str:
    """The plain caption in one of `LANGUAGES`."""
    name, relations, third = _SENTENCES[language]
    phrases = [name(thing) for thing in scene.things]
    text = phrases[0]
    if scene.relation:
        text = relations[scene.relation].format(phrases[0], _after(language, phrases[1]))
    if scene.third:
        text += third[scene.third].format(phrases[2])
    return text


def _phrase(thing: Thing, random: np.random.Generator, with_size: bool) -> str:
    words = [_pick(_SIZE_WORDS[thing.size], random)] if with_size else []
    words += [thing.colour, thing.shape]
    return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


def _pick(options: tuple[str, ...], random: np.random.Generator) -> str:
    return options[int(random.integers(0, len(options)))]


_GERMAN_COLOURS = {
    "red": "rot", "orange": "orangefarben", "yellow": "gelb", "green": "grün",
    "cyan": "türkisfarben", "blue": "blau", "purple": "violett", "pink": "rosafarben",
}  # fmt: skip
_GERMAN_SHAPES = {
    "circle": ("Kreis", "er"), "square": ("Quadrat", "es"), "triangle": ("Dreieck", "es"), "star": ("Stern", "er"),
    "cross": ("Kreuz", "es"), "ring": ("Ring", "er"), "diamond": ("Rhombus", "er"), "heart": ("Herz", "es"),
}  # fmt: skip
_FRENCH_COLOURS = {
    "red": ("rouge", "rouge"), "orange": ("orange", "orange"), "yellow": ("jaune", "jaune"), "green": ("vert", "verte"),
    "cyan": ("cyan", "cyan"), "blue": ("bleu", "bleue"), "purple": ("violet", "violette"), "pink": ("rose", "rose"),
}  # fmt: skip
_FRENCH_SHAPES = {
    "circle": ("cercle", 0), "square": ("carré", 0), "triangle": ("triangle", 0), "star": ("étoile", 1),
    "cross": ("croix", 1), "ring": ("anneau", 0), "diamond": ("losange", 0), "heart": ("cœur", 0),
}  # fmt: skip
_SPANISH_COLOURS = {
    "red": ("rojo", "roja"), "orange": ("naranja", "naranja"), "yellow": ("amarillo", "amarilla"), "green": ("verde", "verde"),
    "cyan": ("cian", "cian"), "blue": ("azul", "azul"), "purple": ("morado", "morada"), "pink": ("rosa", "rosa"),
}  # fmt: skip
_SPANISH_SHAPES = {
    "circle": ("círculo", 0), "square": ("cuadrado", 0), "triangle": ("triángulo", 0), "star": ("estrella", 1),
    "cross": ("cruz", 1), "ring": ("anillo", 0), "diamond": ("rombo", 0), "heart": ("corazón", 0),
}  # fmt: skip
_CHINESE_COLOURS = {
    "red": "红色", "orange": "橙色", "yellow": "黄色", "green": "绿色",
    "cyan": "青色", "blue": "蓝色", "purple": "紫色", "pink": "粉色",
}  # fmt: skip
_CHINESE_SHAPES = {
    "circle": "圆形", "square": "正方形", "triangle": "三角形", "star": "星形",
    "cross": "十字", "ring": "圆环", "diamond": "菱形", "heart": "心形",
}  # fmt: skip


def _german(thing: Thing) -> str:
    noun, ending = _GERMAN_SHAPES[thing.shape]
    return f"ein {_GERMAN_COLOURS[thing.colour]}{ending} {noun}"


def _french(thing: Thing) -> str:
    noun, feminine = _FRENCH_SHAPES[thing.shape]
    return f"{('un', 'une')[feminine]} {noun} {_FRENCH_COLOURS[thing.colour][feminine]}"


def _spanish(thing: Thing) -> str:
    noun, feminine = _SPANISH_SHAPES[thing.shape]
    return f"{('un', 'una')[feminine]} {noun} {_SPANISH_COLOURS[thing.colour][feminine]}"


def _chinese(thing: Thing) -> str:
    return f"一个{_CHINESE_COLOURS[thing.colour]}{_CHINESE_SHAPES[thing.shape]}"


def _after(language: str, phrase: str) -> str:
    """German puts what follows a preposition into the dative: all its nouns here are masculine or neuter."""
    if language != "de":
        return phrase
    _, adjective, noun = phrase.split(" ")
    return f"einem {adjective[:-2]}en {noun}"


_SENTENCES = {
    "de": (
        _german,
        {"left": "{} links von {}", "right": "{} rechts von {}", "above": "{} über {}", "below": "{} unter {}"},
        {"left": ", links davon {}", "right": ", rechts davon {}", "above": ", darüber {}", "below": ", darunter {}"},
    ),
    "fr": (
        _french,
        {"left": "{} à gauche d'{}", "right": "{} à droite d'{}", "above": "{} au-dessus d'{}", "below": "{} au-dessous d'{}"},
        {"left": ", et {} à leur gauche", "right": ", et {} à leur droite", "above": ", et {} au-dessus", "below": ", et {} au-dessous"},
    ),
    "es": (
        _spanish,
        {
            "left": "{} a la izquierda de {}",
            "right": "{} a la derecha de {}",
            "above": "{} encima de {}",
            "below": "{} debajo de {}",
        },
        {"left": ", y {} a la izquierda", "right": ", y {} a la derecha", "above": ", y {} encima", "below": ", y {} debajo"},
    ),
    "zh": (
        _chinese,
        {"left": "{}在{}的左边", "right": "{}在{}的右边", "above": "{}在{}的上面", "below": "{}在{}的下面"},
        {"left": ",左边有{}", "right": ",右边有{}", "above": ",上面有{}", "below": ",下面有{}"},
    ),
}
