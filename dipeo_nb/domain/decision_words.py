"""The vocabulary of yes and no: English, German, French, Spanish, and the plain answers of some further languages.

Words are in lower case, apostrophes and hyphens are blanks ("n'est pas" is three words), and "n't" is the word "not".
"""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


YES = words(
    "yes yep yeah yup yea affirmative ja jawohl jep oui ouais sí sì sim tak да 是 是的 对 はい 네 예 evet ναι نعم हाँ हां igen kyllä так ใช่ כן بله"
)
"""Answers that are a yes by themselves."""
NO = words(
    "no nope nah nay nein nee nö non não нет 否 不 不是 不对 いいえ 아니요 아니오 hayır όχι नहीं nej tidak ні ไม่ใช่ ไม่ לא لا نه"
)
"""Answers that are a no by themselves."""
DENYING = words("no non não")
"""Those that may also deny the words after them: "no errors", "no es correcto", "non valide"."""
ALONE = {
    "y": True, "n": False, "si": True, "ya": True, "ano": True, "ne": False, "ei": False, "nem": False, "doch": True, "✓": True, "✔": True, "✅": True, "👍": True,
    "✗": False, "✘": False, "❌": False, "👎": False,
}  # fmt: skip
"""Answers only where they are the whole clause."""
TRUE = words("true wahr vrai verdadero cierto vero verdadeiro")
FALSE = words("false falsch falso")
"""Words for what is the case and what is not."""
ASSENT = words(
    "sure surely absolutely definitely certainly indeed totally exactly precisely obviously clearly perfect perfectly "
    "great excellent ok okay fully undoubtedly natürlich selbstverständlich sicher sicherlich klar absolut genau "
    "unbedingt gewiss zweifellos certainement absolument évidemment exactement parfaitement certes claro ciertamente "
    "absolutamente exactamente efectivamente seguro definitivamente perfecto"
)
"""Words that agree when they stand alone, stress what follows otherwise ("absolutely not"), and open many an answer."""

VERDICT_GOOD = words(
    "lgtm granted approve approved approves approving accept accepted accepts pass passed passes passing angenommen akzeptiert bestanden genehmigt "
    "freigegeben besteht accepté approuvé validé réussi aprobado aceptado apruebo acepto aprobada validado"
)
VERDICT_BAD = words(
    "denied reject rejected rejects rejecting fail failed fails failing decline declined disapprove disapproved refuse abgelehnt zurückgewiesen durchgefallen "
    "verworfen rejeté refusé recalé échoué rechazado rechazo suspendido suspenso denegado"
)
"""Verbs of judges: these outweigh the rest of a clause ("accepted despite errors")."""
GOOD = words(
    "recommend recommended approval correct right good fine valid acceptable meet met satisfy satisfied satisfies satisfactory confirmed fulfil fulfilled sufficient adequate accurate complete sound agree agreed "
    "positive ready suitable polite flawless consistent clear "
    "richtig korrekt gut stimmt zutreffend zutrifft gültig akzeptabel erfüllt vollständig einverstanden fehlerfrei ausreichend "
    "genügt passt ordnung exact juste bon bonne valide valable complet conforme suffisant convient satisfait correcto bien bueno buen "
    "válido aceptable completo acuerdo cumple suficiente exacto corretto certo bene valido"
)
BAD = words(
    "incorrect wrong negative unacceptable inaccurate invalid incomplete bad insufficient inadequate unsatisfactory disagree lacks lack lacking "
    "missing poor flawed faulty untrue unsuitable impolite rude inconsistent unclear doubt "
    "inkorrekt schlecht ungültig unvollständig fehlerhaft unzureichend mangelhaft ungenügend inakzeptabel fehlt fehlen "
    "faux fausse mauvais invalide incomplet insuffisant manque manquent faltan incorrecto mal malo inválido incompleto insuficiente "
    "inaceptable erróneo equivocado sbagliato"
)
FAULT = words(
    "issue problem error mistake fault flaw bug defect objection concern complaint violation typo weakness gap inconsistency "
    "inconsistencies inaccuracies change changed revision edit improvement rework object complain criticize criticise fix "
    "fehler problem probleme mangel mängel einwand einwände bedenken beanstandung beanstanden auszusetzen lücke schwäche "
    "erreur problème faute défaut objection redire signaler reprocher anomalie fallo falta defecto objeción objeciones "
    "inconveniente errores fallos problema error errore"
)
"""Faults; to have none of them is good."""

NEGATION = words(
    "not never zero 0 hardly scarcely neither without none nothing nobody cannot nicht nie niemals kein keine keiner keinen keinem "
    "keines keinerlei ohne weder kaum keineswegs nichts niemand pas jamais aucun aucune sans rien ni nunca jamás sin ningún "
    "ninguna ninguno nada nadie tampoco apenas dont isnt doesnt cant wont didnt nem"
)
CONCORD = words("ningún ninguna ninguno nada nadie nunca jamás tampoco")
"""Negations that go with a `no` and do not undo it: "no hay ningún error"."""
LATE = words("nicht kaum keineswegs nie niemals pas jamais")
"""Negations that may follow what they deny: "das stimmt nicht", "je n'approuve pas"."""
HEDGE = words(
    "unsure uncertain maybe perhaps possibly depends whether if might undecided vielleicht unsicher ob wenn falls eventuell jein "
    "peut-être peut être dépend incertain quizá quizás depende"
)
"""A clause with one of these does not answer."""
REASON = words(
    "because since as weil denn car puisque porque pues although though despite unless except otherwise obwohl trotz "
    "wenngleich malgré aunque pese sonst"
)
"""Words that begin a reason or a concession, which is not the answer."""
CONTRAST = words(
    "but however so therefore thus hence overall aber jedoch sondern also daher deshalb insgesamt mais donc cependant "
    "pourtant pero sino entonces"
)
"""Words that begin a new clause."""
AND = words("and und et y e")
OR = words("or nor oder noch ou o u ni vs versus")
BOTH = words("neither either weder entweder ni both")
"""Words that may precede two alternatives."""
AFTER_AND = words("is are was it this that thus there therefore not no ist sind war es das nicht c il elle est sont está son")
"""Words after an `and` that begins a new clause."""
AFTER_NO = words(
    "it this that these there i we you they he she its my your the a an because since as sorry thanks thank not "
    "c ce cela ça il elle je le la les"
)
"""After these a "no" at the beginning is the answer; before other words it may deny them ("no errors")."""
LINKING = words("is would be must seems remains lautet ist wäre est serait es sería será that")
"""Words that may come between an announcement and the answer: "the verdict is no"."""
FILLER = words(
    "i we you he she they it this that these those there the an my our your its am is are was were be been being would will d s m "
    "ll re ve do does did has have had say said answer think believe guess suppose vote go going with for to of at all in on "
    "then well hmm really very quite just rather simply please so too thing again final overall here entirely completely "
    "from afraid ca can could wo should may necessarily unfortunately sadly sorry probably likely yet a clear definite resounding enough me to "
    "ich wir er sie es das dies die der den dem ein eine einen ist sind war wäre würde sage sagen denke glaube meine finde eher "
    "leider wirklich ganz sehr mir dazu sich hier daher wahrscheinlich "
    "je j nous il elle ce c cela ça le la les l un une est sont serait dirais dis pense crois ne en à que qu vraiment tout "
    "malheureusement désolé probablement "
    "yo lo el los las una son sería diría digo creo pienso muy todo realmente lamentablemente probablemente"
)
"""Words that carry an answer without being one."""
MARKERS = words(
    "decision verdict answer conclusion result judgement judgment urteil entscheidung antwort ergebnis fazit réponse décision "
    "jugement résultat respuesta decisión veredicto conclusión resultado risposta"
)
"""Words that announce the answer: "Verdict: no"."""
UNKNOWING = words("say tell know judge determine sagen wissen beurteilen dire savoir juger decir saber juzgar")
"""Verbs whose negation denies nothing: "I can't say"."""
RETRACTION = words("wait actually moment attends espera")
"""At the beginning of a clause: what was said before does not count any more."""

PHRASES = {
    "of course": "absolutely", "by all means": "absolutely", "no way": "nope", "by no means": "nope", "in no way": "nope",
    "not at all": "nope", "no chance": "nope", "not in the least": "nope", "anything but": "not", "far from": "not",
    "no longer": "not", "unable to": "not", "fails to": "not", "failed to": "not", "fail to": "not", "rather than": "not",
    "instead of": "not", "not only": "", "free of": "without", "free from": "without", "lack of": "without",
    "think so": "agree", "believe so": "agree", "seems so": "agree", "suppose so": "agree", "guess so": "agree",
    "there is no way": "not", "needs work": "incomplete", "could be better": "incomplete", "could be improved": "incomplete", "the case": "true", "doubt it": "disagree",
    "no doubt": "absolutely", "without doubt": "absolutely", "without a doubt": "absolutely", "without any doubt": "absolutely",
    "no question": "absolutely", "without question": "absolutely", "no wonder": "", "no matter": "", "no idea": "maybe",
    "no clue": "maybe", "not sure": "maybe", "not certain": "maybe", "not clear": "maybe", "do not know": "maybe",
    "could be": "maybe", "might be": "maybe", "hard to say": "maybe", "thumbs up": "yes",
    "thumbs down": "nope", "on second thought": "wait", "on reflection": "wait", "scratch that": "wait",
    "good question": "", "good point": "", "even though": "although", "in spite of": "despite", "nothing wrong": "flawless",
"stimme zu": "einverstanden", "stimme nicht zu": "disagree", "more work": "incomplete",
    "auf jeden fall": "natürlich", "auf keinen fall": "nope", "in keiner weise": "nope", "nicht nur": "", "frei von": "ohne",
    "denke schon": "einverstanden", "glaube schon": "einverstanden",
    "der fall": "richtig", "ohne zweifel": "natürlich",
    "kein zweifel": "natürlich", "keine ahnung": "vielleicht", "nicht sicher": "vielleicht", "weiß nicht": "vielleicht",
    "weiß es nicht": "vielleicht", "kommt darauf an": "vielleicht", "überhaupt nicht": "nope",
    "bien sûr": "certainement", "tout à fait": "certainement", "pas du tout": "nope", "d accord": "juste",
    "sans aucun doute": "certainement", "sans doute": "certainement", "pas seulement": "", "bien que": "although",
    "parce que": "because", "le cas": "vrai", "pas sûr": "maybe", "ne sais pas": "maybe",
    "por supuesto": "claro", "desde luego": "claro", "de ninguna manera": "nope", "de ningún modo": "nope", "en absoluto": "nope",
    "ni hablar": "nope", "para nada": "nope", "tal vez": "quizá", "sin duda": "claro", "sin ninguna duda": "claro", "no solo": "", "no sólo": "",
    "de acuerdo": "acuerdo", "el caso": "verdadero", "no estoy seguro": "quizá", "no sé": "quizá", "no lo sé": "quizá", "a pesar": "aunque",
}  # fmt: skip
"""Phrases → the one word that means the same; the empty word: nothing."""
