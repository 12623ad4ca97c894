"""Decisions and selections in words: how they are read, and that the real service hands them on without a second call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from dipeo_nb import Session
from dipeo_nb.domain.chat import LLMRequest, Message
from dipeo_nb.domain.decision import DECISION_SCHEMA, decided
from dipeo_nb.domain.enums import MessageType
from dipeo_nb.domain.selection import chosen_ids
from dipeo_nb.errors import ProviderError, StructureError
from dipeo_nb.llm.adapters import DecisionAdapter, MemorySelectionAdapter, UnreadableAnswerWarning
from dipeo_nb.llm.service import LLMService
from dipeo_nb.security.keys import EnvironmentAPIKeyService
from dipeo_nb.testing import scripted
from tests.support import wire_anthropic, wire_google, wire_ollama
from tests.support import wire_openai as llm_wire
from tests.support.run_events import warnings_of
from tests.support.wire_openai import Reply, ScriptedServer, request, run, settings_with

# Reading.

FORMS = [
    ("**Yes**", True),
    ("Decision: true", True),
    ('{"decision": true}', True),
    ('{"decision": "false"}', False),
    ('{"decision": "No"}', False),
    ('```json\n{"decision": false}\n```', False),
    ("", None),
    ("Decision: FALSE", False),
    ("decision: Yes", True),
    ('{"decision": 0}', False),
    ("{'decision': False}", False),
    ('{"decision": "nein"}', False),
    ("<think>maybe no</think> yes", True),
    ("<think>yes, it looks right</think>No.", False),
    ("Y", True),
    ("N", False),
    ("1", None),
    ("0", None),
    ('{"decision": false}', False),
    ('{"answer": "yes"}', True),
    ("[true]", None),
    ('"no"', False),
    ("> Answer yes if it is good\n\nNo.", False),
    ('I was told to answer {"decision": true} or {"decision": false}. My answer: {"decision": false}', False),
    ("## Verdict\n\nNo, it fails.", False),
    ("✅", True),
    ("**Decision:** No", False),
    ("Decision: no errors found", True),
    ("Final answer: **No**", False),
    ("<think>no no</think>\n\nYes", True),
    ('{"decision": "Absolutely not"}', False),
    ("decision: true\nreason: no errors", True),
    ("decision: false\nreason: it is good but late", False),
    ('{"decision": true, "reason": "no errors"}', True),
    ('{"reason": "it is good", "decision": false}', False),
    ('Here is my answer:\n```json\n{"decision": false}\n```\nI hope that helps.', False),
    ('{"decision": null}', None),
    ('{"decision": "maybe"}', None),
    ('{"decision": "TRUE"}', True),
    ('{"Decision": true}', True),
    ('{"decision": {"value": true}}', None),
    ('{"result": false}', False),
    ('{"decision": true', True),
    ("DECISION: NO", False),
    ("y", True),
    ("n.", False),
    ("t", None),
    ('{"approved": true}', True),
    ('{"valid": false, "score": 3}', False),
    ('{"has_errors": true}', False),
    ('{"hasErrors": false, "notes": "fine"}', True),
    ('{"should_continue": true}', True),
    ('{"not_ready": true}', False),
    ('{"approved": true, "final": false}', None),
]

ENGLISH = [
    ("Yes", True),
    ("No", False),
    ("yes.", True),
    ("NO!", False),
    ("No, that is not correct.", False),
    ("No, that's right, it fails.", False),
    ("Yes, but it is not perfect.", True),
    ("That is not correct.", False),
    ("That is correct.", True),
    ("This isn't true.", False),
    ("It isn’t true.", False),
    ("The answer is yes.", True),
    ("The answer is no.", False),
    ("My verdict: NO", False),
    ("decision = false", False),
    ("Not sure, yes, I think it passes.", True),
    ("The text passes the check.", True),
    ("The text fails the check.", False),
    ("The text does not fail the check.", True),
    ("It doesn't pass.", False),
    ("I can't say no to this.", True),
    ("Approved.", True),
    ("Rejected: too long.", False),
    ("The criteria are not met.", False),
    ("All criteria are met.", True),
    ("The proof is incorrect.", False),
    ("It is incomplete, so no.", False),
    ("At first it looks wrong, but it is correct.", True),
    ("It looks correct, but it is wrong.", False),
    ("No doubt about it: yes.", True),
    ("No problem, it is valid.", True),
    ("I do not agree.", False),
    ("I agree completely.", True),
    ("After weighing the arguments, my final answer is: False", False),
    ("Absolutely.", True),
    ("True or false? True.", True),
    ("This never works and is invalid.", False),
    ("Maybe.", None),
    ("It depends.", None),
    ("The sky is blue.", None),
    ("I am not sure whether it is correct.", None),
    ("Absolutely not.", False),
    ("Incorrect: the sum is 5, a correct result would be 4.", False),
    ("Rejected: it is good, but too long.", False),
    ("Definitely not.", False),
    ("Certainly not!", False),
    ("Sure, but no.", False),
    ("Absolutely no way", False),
    ("Not true.", False),
    ("That is not wrong.", True),
    ("Yes and no.", None),
    ("Correct me if I am wrong, but no", False),
    ("Pass? No.", False),
    ("Fail.", False),
    ("It fails the test", False),
    ("No errors found. The text is correct.", True),
    ("No issues.", True),
    ("There are no problems with it.", True),
    ("True, it is not bad", True),
    ("Wrong: it is fine", True),
    ("I don't think so.", False),
    ("I think so.", True),
    ("Of course", True),
    ("Of course not", False),
    ("Never", False),
    ("Unfortunately, no.", False),
    ("Reject", False),
    ("The text is good enough", True),
    ("The text is not good enough", False),
    ("Result: pass", True),
    ("LGTM", True),
    ("Could be better.", False),
    ("Verdict: fail", False),
    ("Answer: No, because yes would be wrong", False),
    ("Without doubt yes", True),
    ("Hardly.", False),
    ("Yes. However, it is incomplete.", True),
    ("No. However it is good.", False),
    ("Accept with minor revision", True),
    ("Correct answer is no", False),
    ("sure", True),
    ("pass", True),
    ("Positive", True),
    ("Negative", False),
    ("Yes.", True),
    ("No, that is not correct", False),
    ("I would not say yes.", False),
    ("Not good", False),
    ("It is good. YES", True),
    ("true", True),
    ("False", False),
    ("That is incorrect.", False),
    ("Absolutely!", True),
    ("There is no doubt that it is good: yes.", True),
    ("No problem, it passes.", True),
    ("I cannot approve this.", False),
    ("Approved", True),
    ("Rejected", False),
    ("Nothing is wrong; yes", True),
    ("maybe", None),
    ("no no no", False),
    ("Yes, but not entirely", True),
    ("The answer is yes", True),
    ("The answer is no", False),
    ("It isn't good", False),
    ("Sure thing", True),
    ("Not bad at all, yes", True),
    ("Yes — it is not bad", True),
    ("NO!!!", False),
    ("I do not see any reason to say no", True),
    ("Is it correct? No.", False),
    ("Yes... wait, no.", False),
    ("No wait, yes", True),
    ("Yes. Actually, no.", False),
    ("You asked me to answer yes or no. No.", False),
    ('You asked: "Is the text correct and complete?" No.', False),
    ("Good question. The text is wrong.", False),
    ("Sure! Here is my judgement: the text is wrong.", False),
    ("Certainly! The text meets all criteria.", True),
    ("OK, but it fails.", False),
    ("Approved with minor issues.", True),
    ("Approved despite some errors.", True),
    ("It is good although the wording is bad.", True),
    ("It is not good because the text is complete nonsense.", False),
    ("I think not.", False),
    ("It is not.", False),
    ("That's not the case.", False),
    ("None of the criteria are met.", False),
    ("No sources are given.", False),
    ("There are errors in line 3.", False),
    ("Good, but not perfect.", True),
    ("It is neither correct nor complete.", False),
    ("It is not only correct but also complete.", True),
    ("The text is free of errors.", True),
    ("I have no objections.", True),
    ("No changes needed.", True),
    ("I don't know.", None),
    ("No idea.", None),
    ("Not sure.", None),
    ("❌ No", False),
    ("Answer: yes\n", True),
    ('The statement "the sky is always green" is false.', False),
    ("Probably not.", False),
    ("Good, but the ending fails.", False),
    ("Let me think. The first part is right. The second part is wrong. So, overall: no.", False),
    ("It passes all the checks, I see nothing wrong.", True),
    ("It lacks a conclusion.", False),
    ("Nothing is right.", False),
    ("Looks good to me!", True),
    ("You are right.", True),
    ("The answer is that it fails.", False),
    ("not yes", False),
    ("No. The first claim is true.", False),
    ("The verdict is not approved.", False),
    ("Indeed.", True),
    ("Not at all.", False),
    ("By no means.", False),
    ("Without a doubt.", True),
    ("Don't approve it.", False),
    ("I'd say it doesn't pass.", False),
    ("I would say it's correct.", True),
    ("My answer would be yes.", True),
    ("My final verdict is: yes", True),
    ("The final answer is: no.", False),
    ("In short, yes.", True),
    ("In short: no", False),
    ("To summarise: the draft does not meet the criteria.", False),
    ("It seems so.", True),
    ("Seems fine to me.", True),
    ("I have no doubt that it is wrong.", False),
    ("There is no way this is correct.", False),
    ("This is not an error.", True),
    ("It contains no mistakes.", True),
    ("It contains several mistakes.", False),
    ("I found no issues with the text.", True),
    ("I could not find any problems.", True),
    ("I couldn't find any errors.", True),
    ("I can find nothing wrong with it.", True),
    ("Without any issues.", True),
    ("Zero errors.", True),
    ("Yes, there are no errors.", True),
    ("No, there are errors.", False),
    ("No, there are no errors.", False),
    ("No - it is incomplete", False),
    ("Yes - it is complete", True),
    ("yes\n\nThe text is good.", True),
    ("No\n\nThe text is good but late.", False),
    ("The text is good.\n\nNo", False),
    ("Reasoning: The argument is valid and well supported.\nVerdict: Yes", True),
    ("Step 1: valid. Step 2: invalid. Conclusion: no", False),
    ("decision=True", True),
    ("Decision - yes", True),
    ("Yes!", True),
    ("yes :)", True),
    ("No :(", False),
    ("Yep, looks good", True),
    ("Nope, try again", False),
    ("Not quite.", False),
    ("Not quite right.", False),
    ("Almost, but no.", False),
    ("Almost.", None),
    ("Kind of.", None),
    ("Yes, mostly.", True),
    ("Mostly yes.", True),
    ("Mostly no.", False),
    ("It is hard to say.", None),
    ("I cannot tell.", None),
    ("I'm unable to determine that.", None),
    ("Cannot be determined.", None),
    ("N/A", None),
    ("Unknown", None),
    ("The answer is neither yes nor no.", None),
    ("Could be yes, could be no.", None),
    ("Either yes or no.", None),
    ("Is it good? Yes, it is.", True),
    ("Is it good? No, it isn't.", False),
    ("Yes, it isn't bad.", True),
    ("I agree with the author, so yes.", True),
    ("I disagree.", False),
    ("I don't disagree.", True),
    ("This is unacceptable.", False),
    ("Accepted.", True),
    ("Not accepted.", False),
    ("Denied.", False),
    ("Declined.", False),
    ("Granted.", True),
    ("Confirmed.", True),
    ("It is confirmed.", True),
    ("That is a no from me.", False),
    ("That's a yes from me!", True),
    ("It's a no.", False),
    ("Hard no.", False),
    ("Hell no", False),
    ("Big yes", True),
    ("I'm afraid not.", False),
    ("I hope so.", None),
    ("I guess not.", False),
    ("I suppose so.", True),
    ("Guess so", True),
    ("No, thank you.", False),
    ("no thanks", False),
    ("None.", False),
    ("Nothing.", False),
    ("No.", False),
    ("I reject this.", False),
    ("I do not reject it.", True),
    ("I cannot say yes.", False),
    ("I can't say yes.", False),
    ("It does not meet the requirements.", False),
    ("It meets the requirements.", True),
    ("The requirements have been met.", True),
    ("Requirements not met.", False),
    ("Not all criteria are met.", False),
    ("Every criterion is satisfied.", True),
    ("Please note that the answer is no.", False),
    ("I am confident the answer is yes.", True),
    ("The answer isn't yes.", False),
    ("The answer is not no.", True),
    ("Yes, I know it is not perfect, but it passes.", True),
    ("no, it's perfect", False),
    ("Perfect!", True),
    ("Excellent work. Yes.", True),
    ("Great question! No.", False),
    ("Short answer: no. Long answer: it has many good parts.", False),
    ("TL;DR: yes", True),
    ("YES.", True),
    ("affirmative", True),
    ("Negative.", False),
    ("10/10", None),
    ("True, but not relevant.", True),
    ("The style is good but the facts are wrong.", False),
    ("The facts are wrong but the style is good.", True),
    ("No need to change anything.", True),
    ("Nothing to complain about.", True),
    ("Nothing needs to be changed.", True),
    ("No further revision is needed.", True),
    ("It still needs revision.", False),
    ("Needs work.", False),
    ("Ready to ship.", True),
    ("Not ready yet.", False),
    ("Ship it.", None),
    ("Yes, this is correct.", True),
    ("No, this is incorrect.", False),
    ("I believe the answer is yes because the text is fine.", True),
    ("The content does not satisfy the question, so the decision is false.", False),
    ("Based on the content, I would answer: true", True),
    ("true.", True),
    ("My decision is false.", False),
    ("Decision: true (the text is good)", True),
    ("decision is no", False),
    ("Final decision → no", False),
    ("The draft is ready: yes!", True),
    ("This is not yet ready for publication.", False),
    ("It needs more work.", False),
    ("Looks good.", True),
    ("Not good enough", False),
    ("It's fine", True),
    ("I'd rather not.", False),
    ("Nah.", False),
    ("Yup", True),
    ("Affirmative.", True),
    ("Not bad.", True),
    ("No way!", False),
    ("Sure.", True),
    ("That would be incorrect.", False),
    ("It does.", None),
    ("It doesn't.", False),
    ("It isn't.", False),
    ("Yes it is.", True),
    ("No it isn't.", False),
    ("No it is not correct", False),
    ("Everything is correct.", True),
    ("All good.", True),
    ("All good!", True),
    ("The answer is: Yes.", True),
    ("**Answer:** No", False),
    ("- Yes", True),
    ("1. No", False),
    ("(No)", False),
    ("'yes'", True),
    ("“No.”", False),
    ("YES, absolutely.", True),
    ("no, absolutely not", False),
    ("Yes. No errors found.", True),
    ("No. Errors found.", False),
    ("No errors, so yes.", True),
    ("There's no error; therefore the answer is yes.", True),
    ("I found an error, so no.", False),
    ("I can't find a reason to reject it.", True),
    ("I cannot recommend approval.", False),
    ("I recommend approval.", True),
    ("I recommend rejecting it.", False),
    ("Approve", True),
    ("approve it", True),
    ("Do not approve", False),
    ("No, it's not not correct", False),
    ("It is hardly correct.", False),
    ("It's barely acceptable.", True),
    ("Nobody would disagree.", True),
    ("I have no complaints.", True),
    ("The answer lacks evidence and is therefore not acceptable.", False),
    ("While the tone is friendly, the facts are wrong.", False),
    ("While the tone is bad, the facts are right.", True),
    ("The tone could be better, but overall it passes.", True),
    ("After careful consideration... no.", False),
    ("Hmm, yes?", None),
    ("Yes? No.", False),
    ("The question is whether it is polite. It is.", None),
    ('The user asks "Is it good?" - yes, it is.', True),
    ("Let me check. Step one is correct. Step two is correct. Step three has an error. Therefore: No", False),
    ("Step 1 fails at first glance; on closer look it is correct. Therefore: Yes", True),
    ("As an AI, I cannot decide.", None),
    ("I'm sorry, but I can't help with that.", None),
]

GERMAN = [
    ("Der Text enthält Fehler.", False),
    ("Der Text enthält keine Fehler.", True),
    ("Der Text ist gut genug.", True),
    ("Ja", True),
    ("Nein, das stimmt nicht.", False),
    ("Das stimmt nicht.", False),
    ("Das ist nicht falsch.", True),
    ("Keine Fehler.", True),
    ("Ohne Fehler.", True),
    ("Fehlerfrei.", True),
    ("Es gibt keine Probleme.", True),
    ("Ja und nein.", None),
    ("Natürlich nicht.", False),
    ("Auf keinen Fall.", False),
    ("Ich glaube nicht.", False),
    ("Ich denke schon.", True),
    ("Jein.", None),
    ("Eher nicht.", False),
    ("Eher ja.", True),
    ("Doch.", True),
    ("Leider nein.", False),
    ("Stimmt.", True),
    ("Richtig.", True),
    ("Falsch.", False),
    ("Nicht bestanden.", False),
    ("Vielleicht.", None),
    ("Das ist ja falsch.", False),
    ("Selbstverständlich!", True),
    ("Mein Urteil: nein", False),
    ("Die Antwort lautet ja.", True),
    ("Ja, aber er ist unvollständig.", True),
    ("Das Argument ist weder richtig noch vollständig.", False),
    ("Zunächst wirkt es gut, aber es ist falsch.", False),
    ("Nein.", False),
    ("Nein, das ist nicht richtig.", False),
    ("Ja, das ist richtig.", True),
    ("Ja!", True),
    ("Nicht wirklich.", False),
    ("Das ist korrekt.", True),
    ("Das ist inkorrekt.", False),
    ("Der Text ist nicht gut.", False),
    ("Ich würde nein sagen.", False),
    ("Ich würde ja sagen.", True),
    ("Ich sage nein.", False),
    ("Keineswegs.", False),
    ("Auf jeden Fall!", True),
    ("Unbedingt.", True),
    ("Ich weiß es nicht.", None),
    ("Entscheidung: nein", False),
    ("Ergebnis: bestanden", True),
    ("Abgelehnt.", False),
    ("Angenommen.", True),
    ("Ja, obwohl einige Fehler vorhanden sind.", True),
    ("Es ist weder falsch noch schlecht.", True),
    ("Ja, genau.", True),
    ("Nein, leider nicht.", False),
    ("Das ist in Ordnung.", True),
    ("Das ist nicht in Ordnung.", False),
    ("Ich stimme zu.", True),
    ("Ich stimme nicht zu.", False),
    ("Der Text erfüllt die Kriterien nicht.", False),
    ("Der Text erfüllt alle Kriterien.", True),
    ("Kein Problem.", True),
    ("Es fehlt ein Beleg.", False),
]

FRENCH = [
    ("Non, ce n'est pas correct.", False),
    ("Oui.", True),
    ("Ce n'est pas faux.", True),
    ("Il n'y a pas d'erreur.", True),
    ("Aucune erreur.", True),
    ("Sans erreur.", True),
    ("C'est exact.", True),
    ("C'est faux.", False),
    ("Oui et non.", None),
    ("Absolument pas.", False),
    ("Bien sûr que non.", False),
    ("Bien sûr.", True),
    ("Je ne crois pas.", False),
    ("Pas vraiment.", False),
    ("Jamais.", False),
    ("Tout est correct.", True),
    ("Rien à redire.", True),
    ("Non valide.", False),
    ("Peut-être.", None),
    ("Ça dépend.", None),
    ("La réponse est non.", False),
    ("Décision : oui", True),
    ("Le texte ne convient pas.", False),
    ("Je dirais que oui.", True),
    ("Refusé.", False),
    ("Oui, malgré quelques erreurs.", True),
    ("C’est bon.", True),
    ("Non.", False),
    ("Non, c'est incorrect.", False),
    ("Oui, c'est correct.", True),
    ("Pas du tout.", False),
    ("Tout à fait.", True),
    ("Ce n'est pas bon.", False),
    ("Le texte est bon.", True),
    ("Le texte n'est pas acceptable.", False),
    ("Je pense que non.", False),
    ("Je pense que oui.", True),
    ("Je ne pense pas que ce soit correct.", False),
    ("Aucun problème.", True),
    ("Il y a des erreurs.", False),
    ("Verdict : non", False),
    ("Accepté.", True),
    ("Évidemment !", True),
    ("Certainement pas.", False),
    ("Je ne sais pas.", None),
    ("Oui, c'est bien ça.", True),
    ("Non, pas du tout.", False),
    ("C'est correct.", True),
    ("Ce n'est pas vrai.", False),
    ("Il n'y a aucun problème.", True),
    ("Le texte contient des erreurs.", False),
]

SPANISH = [
    ("No lo sé.", None),
    ("No, no es correcto.", False),
    ("No es correcto.", False),
    ("No hay errores.", True),
    ("No lo creo.", False),
    ("Sin errores.", True),
    ("Claro que no.", False),
    ("Por supuesto.", True),
    ("Sí y no.", None),
    ("Nunca.", False),
    ("Es falso.", False),
    ("No está mal.", True),
    ("No hay ningún problema.", True),
    ("Creo que sí.", True),
    ("Creo que no.", False),
    ("La respuesta es no.", False),
    ("Decisión: sí", True),
    ("El texto no cumple los criterios.", False),
    ("Aprobado.", True),
    ("Rechazado.", False),
    ("Depende.", None),
    ("Quizás.", None),
    ("Sí, es correcto.", True),
    ("Si, es correcto.", True),
    ("Hay dos errores.", False),
    ("En absoluto.", False),
    ("Sí.", True),
    ("Sí!", True),
    ("¡No!", False),
    ("¡Claro que sí!", True),
    ("Claro.", True),
    ("El texto es bueno.", True),
    ("El texto no es bueno.", False),
    ("El texto es incorrecto.", False),
    ("No estoy de acuerdo.", False),
    ("Estoy de acuerdo.", True),
    ("No hay ningún error.", True),
    ("Tiene errores.", False),
    ("Jamás.", False),
    ("De ninguna manera.", False),
    ("Respuesta: sí", True),
    ("Veredicto: no", False),
    ("Tal vez.", None),
    ("Es correcto, pero no completo.", False),
    ("Definitivamente no.", False),
    ("Definitivamente sí.", True),
    ("Por supuesto que no.", False),
    ("Creo que es correcto.", True),
    ("No creo que sea correcto.", False),
    ("Me parece bien.", True),
    ("No me parece bien.", False),
    ("Sí, claro.", True),
    ("No, en absoluto.", False),
    ("Está bien.", True),
    ("No está bien.", False),
    ("No tiene errores.", True),
    ("Cumple todos los requisitos.", True),
    ("Faltan datos.", False),
    ("Vale.", None),
    ("Para nada.", False),
]

OTHERS = [
    ("Não, está errado.", False),
    ("はい、正しいです。", True),
    ("Нет", False),
    ("Sì, è corretto.", True),
    ("Evet, doğru.", True),
    ("Ναι", True),
    ("Όχι.", False),
    ("نعم", True),
    ("हाँ", True),
    ("नहीं, यह सही नहीं है।", False),
    ("ไม่ใช่", False),
    ("Ne.", False),
]

READ = [*FORMS, *ENGLISH, *GERMAN, *FRENCH, *SPANISH, *OTHERS]


@pytest.mark.parametrize(("text", "expected"), READ, ids=[text[:40] or "empty" for text, _ in READ])
def test_a_decision_is_found_in_words(text: str, expected: bool | None):
    """What a reader would understand; None where a reader could not tell."""
    assert decided(None, text) is expected


@pytest.mark.parametrize(
    ("structured", "text", "expected"),
    [
        ({"decision": True}, "No.", True), ({"decision": "no"}, "Yes.", False), ({"decision": 0}, "Yes.", False), (True, "No.", True),
        ({"other": 1}, "No.", False), ({"decision": "hm"}, "Yes.", True),
    ],
)  # fmt: skip
def test_structure_goes_before_words(structured: Any, text: str, expected: bool):
    """The field of a structured answer decides, whatever the text says; where it says nothing, the text does."""
    assert decided(structured, text) is expected


@pytest.mark.parametrize(
    ("question", "text", "expected"),
    [
        ("Does the text contain errors?", "No errors found.", False),
        ("Does the text contain errors?", "There are two errors.", True),
        ("Are there any problems?", "Yes.", True),
        ("Are there any problems?", "No.", False),
        ("Is anything wrong?", "Nothing is wrong.", False),
        ("Gibt es Fehler?", "Keine Fehler.", False),
        ("Is the draft rude?", "It is polite.", False),
        ("Are there errors?", "False", False),
        ("Are there errors?", '{"has_errors": true}', True),
        ("Are there errors?", '{"valid": true}', False),
        ("Are there errors?", "Correct.", True),
        ("Is the text free of errors?", "No errors.", True),
        ("Is it good, or are there errors?", "No errors.", True),
        ("Are there errors? Answer yes if it is fine.", "No errors.", True),
        ("Is it good?", "No issues.", True),
        ("Look for errors. Is it ready?", "No errors.", True),
        ("", "No issues.", True),
    ],
)
def test_what_is_asked_decides_what_no_errors_means(question: str, text: str, expected: bool):
    """No errors is good news, and a no where errors are asked for."""
    assert decided(None, text, question) is expected


@given(st.text(st.sampled_from("yes no{}\"'<>thinkdecision:=*`-.,\n ?"), max_size=60))
def test_any_text_is_read_or_not(text: str):
    """Whatever comes is a yes, a no, or neither, and the same each time."""
    assert decided(None, text) is decided(None, text)


@pytest.mark.parametrize(
    "piece", ["no ", "{", '"', "<think>", "- ", "a", '{"decision": ', "n't", "`", "> ", "decision:", "yes or "]
)
def test_long_answers_are_read_in_linear_time(piece: str):
    """Hundreds of thousands of repeats are read at once; a quadratic reader would not end here."""
    decided(None, piece * 200_000)


# Selections.

LISTED = [Message(f"m{n}", "a", "b", "x", MessageType.PERSON_TO_PERSON, 1.0) for n in range(1, 8)]


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        (None, "I would keep m1 and m4.", "m1 m4"),
        (None, "m1, m2 and m3; m5 is not needed", "m1 m2 m3"),
        (None, "m1: relevant\nm2: not relevant\nm3: relevant", "m1 m3"),
        (None, "Not m2, but m3", "m3"),
        (None, "Skip m2 and m3. Keep m4.", "m4"),
        (None, "I'd drop m2.", "m1 m3 m4 m5 m6 m7"),
        (None, "All except m3.", "m1 m2 m4 m5 m6 m7"),
        (None, "all of them", "m1 m2 m3 m4 m5 m6 m7"),
        (None, "m2-m4 and m6", "m2 m3 m4 m6"),
        (None, "m2 to m4", "m2 m3 m4"),
        (None, "Ich würde m2 und m5 behalten, außer m7.", "m2 m5"),
        (None, "Keep **m1**, `M4`, [m5] and (m6).", "m1 m4 m5 m6"),
        (None, '["m1","m4"]', "m1 m4"),
        (None, '{"message_ids": ["m1", "m4"', "m1 m4"),
        (None, "<think>m1? m2?</think> m5", "m5"),
        ({"message_ids": "m1"}, "", "m1"),
        ({"message_ids": [1, "M4", "m99"]}, "", "m1 m4"),
        ({"message_ids": []}, "m1", ""),
        (None, "None.", ""),
        (None, "No messages are relevant.", ""),
        (None, "I like turtles.", None),
        (None, "", None),
        ({"message_ids": ["m99"]}, "", None),
    ],
)
def test_ids_are_found_in_words(answer: Any, text: str, expected: str | None):
    """Ids of a list or of a sentence, without those it leaves out; None when it says nothing of the kind."""
    assert chosen_ids(answer, text, LISTED) == (None if expected is None else expected.split())


# Through the real service.

KEY = "sk-test-1234567890abcdef"
WIRES: dict[str, tuple[str, Callable[[str], Reply], Callable[[str], dict[str, Any]]]] = {
    "openai": ("gpt-4o", llm_wire.says, lambda url: {"openai_base_url": url, "openai_api_key": SecretStr(KEY)}),
    "anthropic": (
        "claude-sonnet-5",
        wire_anthropic.says,
        lambda url: {"anthropic_base_url": url.removesuffix("/v1"), "anthropic_api_key": SecretStr(KEY)},
    ),
    "gemini": (
        "gemini-2.5-flash",
        wire_google.says,
        lambda url: {"google_base_url": url.removesuffix("/v1"), "google_api_key": SecretStr(KEY)},
    ),
    "ollama": (
        "llama3.2",
        lambda text: wire_ollama.Ollama(wire_ollama.says(text)),
        lambda url: {"ollama_host": url.removesuffix("/v1")},
    ),
}


def service_on(server: ScriptedServer, name: str) -> LLMService:
    settings = settings_with(**WIRES[name][2](server.url))
    return LLMService(settings, EnvironmentAPIKeyService(settings))


def posts(server: ScriptedServer) -> int:
    """Calls of a model; a list of models or a version costs nothing."""
    return sum(seen.method == "POST" and bool(seen.body.get("messages") or seen.body.get("input") or seen.body.get("contents"))
               for seen in server.seen)  # fmt: skip


@pytest.mark.parametrize("name", WIRES)
@pytest.mark.parametrize(
    ("text", "expected"), [("No, that is not correct.", False), ("**Yes**", True), ('{"decision": "false"}', False)]
)
def test_every_provider_hands_on_prose_after_one_call(name: str, text: str, expected: bool):
    """Structure is asked for and words come: one call, no error, no repair; usage is counted."""
    model, says, _ = WIRES[name]
    with ScriptedServer(says(text)) as server:

        async def go() -> tuple[bool, Any]:
            service = service_on(server, name)
            template = LLMRequest(name, model, ())
            try:
                decision = await DecisionAdapter(service, template).decide("Is it good?", "x")
                response = await service.complete(
                    request("x", service=name, model=model, response_format=DECISION_SCHEMA, allow_prose=True)
                )
                return decision, response
            finally:
                await service.cleanup()

        decision, response = run(go())
        assert decision is expected
        assert (response.text, response.structured) == (text, None)
        assert response.usage.total
        assert posts(server) == 2


def test_without_the_option_prose_is_repaired_once_and_then_an_error():
    """Other structured answers are as strict as before."""
    with ScriptedServer(llm_wire.says("No.")) as server:
        with pytest.raises(StructureError):
            run(service_on(server, "openai").complete(
                request("x", service="openai", model="gpt-4o", response_format=DECISION_SCHEMA)
            ))  # fmt: skip
        assert posts(server) == 2


DECIDE = """
version: light
persons:
  Ada: {service: openai, model: gpt-4o}
nodes:
- {label: S, type: start}
- {label: K, type: condition, condition_type: llm_decision, person: Ada, judge_by: "Is it good?"}
- {label: Y, type: endpoint}
- {label: N, type: endpoint}
connections:
- {from: S, to: K}
- {from: K_condtrue, to: Y}
- {from: K_condfalse, to: N}
"""
SELECT = """
version: light
persons:
  Ada: {service: openai, model: gpt-4o}
  Bob: {service: openai, model: gpt-4o}
nodes:
- {label: S, type: start}
- {label: N1, type: person_job, person: Ada, default_prompt: Q1}
- {label: N2, type: person_job, person: Bob, default_prompt: Q2}
- {label: T, type: person_job, person: Ada, default_prompt: TASK, memorize_to: "what matters"}
- {label: E, type: endpoint}
connections:
- {from: S, to: N1}
- {from: N1, to: N2}
- {from: N2, to: T}
- {from: T, to: E}
"""


def played(tmp_path: Path, diagram: str, *replies: str) -> tuple[Any, ScriptedServer]:
    """A run of a diagram against an OpenAI server that answers these texts."""
    with (
        ScriptedServer(*map(llm_wire.says, replies)) as server,
        Session(tmp_path, llm=service_on(server, "openai")) as dp,
    ):
        return dp.run(diagram, view=False), server


@pytest.mark.parametrize(
    ("text", "branch"),
    [("No, that is not correct", "N"), ("**Yes**", "Y"), ('{"decision": "false"}', "N"), ('{"decision": 1}', "Y"), ("Keine Fehler.", "Y"), ("Bien sûr que non.", "N")],
)  # fmt: skip
def test_a_run_takes_the_branch_that_the_words_mean(tmp_path: Path, text: str, branch: str):
    """llm_decision through the real service: one call, no warning, and its cost is the node's."""
    result, server = played(tmp_path, DECIDE, text)
    assert list(result.outputs) == [branch]
    assert (posts(server), warnings_of(result)) == (1, [])
    assert result.run.persons["Ada"].calls == 1
    assert result.run.usage.total == 42


def test_what_cannot_be_read_is_a_no_with_a_warning(tmp_path: Path):
    """condfalse is the documented default, and the run says that it was taken so."""
    result, server = played(tmp_path, DECIDE, "Well, that depends.")
    assert list(result.outputs) == ["N"]
    assert posts(server) == 1
    assert "neither yes nor no" in warnings_of(result)[0]


def test_memory_is_chosen_by_a_sentence(tmp_path: Path):
    """The ids in the sentence are remembered; the model is asked once."""
    result, server = played(tmp_path, SELECT, "A1", "A2", "I would keep m1 and m4.", "done")
    assert (posts(server), warnings_of(result)) == (4, [])
    shown = json.dumps(server.seen[-1].body["input"])
    assert "Q1" in shown
    assert "A2" in shown
    assert "A1" not in shown


def test_memory_that_cannot_be_chosen_goes_by_score_with_a_warning(tmp_path: Path):
    """An answer that names no message leaves the choice to the score."""
    result, server = played(tmp_path, SELECT, "A1", "A2", "I like turtles.", "done")
    assert posts(server) == 4
    assert "chosen by score" in warnings_of(result)[0]
    assert result.conversation.turns[-1]["saw"]


def test_the_adapters_have_a_default_too():
    """An unreadable answer: no, or what the caller says, with a warning; or an error on request."""
    template = LLMRequest("openai", "gpt-4o", ())
    adapter = DecisionAdapter(scripted("Well, well."), template)
    with pytest.warns(UnreadableAnswerWarning, match="counts as no"):
        assert run(adapter.decide("Is it?")) is False
    with pytest.warns(UnreadableAnswerWarning, match="counts as yes"):
        assert run(adapter.decide("Is it?", default=True)) is True
    with pytest.raises(ProviderError, match="neither yes nor no"):
        run(adapter.decide("Is it?", default=None))
    selecting = MemorySelectionAdapter(scripted("Well, well."), template)
    with pytest.warns(UnreadableAnswerWarning, match="by score"):
        assert len(run(selecting.select(LISTED, criterion="x", at_most=2, now=1.0))) == 1
