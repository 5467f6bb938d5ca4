"""Source code that looks like somebody's: functions in six programming languages, with made-up names."""

import random
from string import Template
from typing import NamedTuple

_WORDS = """
account action address amount archive array batch block board branch bucket buffer cache chain channel chunk
client cluster column command config context cookie counter course cursor customer data date device digest
domain driver edge email entry error event factor field file filter flag folder frame graph group handle hash
header host image index input invoice item job key label layer ledger level limit line link list lock log map
mask matrix member message method metric model module name node note object offer option order output owner
packet page parent part patch path payment pixel player point pool port price process product profile query
queue range rate record region report request result role route row rule schema score search section sensor
server service session shape shard signal slot source stack state status stock store stream string table tag
target task team ticket timer token total trace tree trigger unit user value vector vendor version view window
"""
WORDS = tuple(_WORDS.split())
"""What names are made of."""

_VERBS = """
add apply build check clean collect compare compute convert copy count create decode delete encode fetch find
format get group handle insert load lock make merge move open parse prepare print push read remove rename
render reset resolve save scan select send sort split start store sum update validate write
"""
VERBS = tuple(_VERBS.split())


class Style(NamedTuple):
    """How a programming language looks: in names, in comments (which begin with `comment`), in functions."""

    comment: str
    camel: bool
    functions: tuple[Template, ...]


def function(style: Style, draw: random.Random) -> str:
    """One function, or statement, of a few lines without an empty one at its end."""
    values = {key: _name(style.camel, draw) for key in ("a", "b", "c", "d")}
    values |= {key: _name(style.camel, draw, draw.choice(VERBS)) for key in ("do", "also")}
    values |= {key: _joined(True, draw.choices(WORDS, k=2)).replace("_", "") for key in ("t", "u")}
    values |= {key: value[0].upper() + value[1:] for key, value in values.items() if key in ("t", "u")}
    values |= {key: str(draw.choice((draw.randrange(10), draw.randrange(5000)))) for key in ("n", "m")}
    values["say"] = " ".join([draw.choice(VERBS), "the", *draw.choices(WORDS, k=3)])
    return draw.choice(style.functions).substitute(values)


def _name(camel: bool, draw: random.Random, *first: str) -> str:
    return _joined(camel, [*first, *draw.choices(WORDS, k=draw.choice((1, 1, 2)))])


def _joined(camel: bool, words: list[str]) -> str:
    if not camel:
        return "_".join(words)
    return words[0] + "".join(word.capitalize() for word in words[1:])


_PYTHON = (
    Template('''def $do($a: list[$t], limit: int = $n) -> dict[str, $t]:
    """$say."""
    found = {}
    for each in $a:
        if each.$b is None or len(found) >= limit:
            continue
        found[each.$c] = $also(each, $d="$c")
    return found
'''),
    Template("""class $t:
    def __init__(self, $a: $u, $b: float = $n.0) -> None:
        self._$a = $a
        self.$b = $b

    async def $do(self, $c: bytes) -> int:
        # $say
        async with self._$a.$also($c) as $d:
            return await $d.read() if $d else $m
"""),
    Template("""@pytest.mark.parametrize("$a", [$n, $m])
def test_$do($a: int, $b: $t) -> None:
    with pytest.raises(ValueError, match="$c"):
        $b.$also($a, $d=[value * 2 for value in range($a)])
    assert $b.$c == {"$d": $a}
"""),
)
_JAVASCRIPT = (
    Template("""export async function $do($a, { $b = $n, $c } = {}) {
  // $say
  const response = await fetch("/api/$b/" + encodeURIComponent($a.id));
  if (!response.ok) {
    throw new Error("$c: " + response.status);
  }
  const $d = await response.json();
  return $d.filter((each) => each.$c > $b).map($also);
}
"""),
    Template("""const $do = ($a, $b) =>
  $a.reduce((sum, each) => {
    const $c = each.$d ?? $n;
    return { ...sum, [each.id]: $also($c, $b) };
  }, {});
"""),
    Template("""router.post("/$a/:$b", async (req, res, next) => {
  try {
    const $c = await $t.$do(req.params.$b, req.body);
    res.status($c ? 200 : 404).json({ $d: $c, total: $n });
  } catch (error) {
    next(error);
  }
});
"""),
)
_GO = (
    Template("""// $say
func ($a *$t) $do(ctx context.Context, $b []string) (map[string]*$u, error) {
	found := make(map[string]*$u, len($b))
	for i, each := range $b {
		$c, err := $a.$also(ctx, each)
		if err != nil {
			return nil, fmt.Errorf("$d %d: %w", i, err)
		}
		found[each] = $c
	}
	return found, nil
}
"""),
    Template("""type $t struct {
	mu  sync.Mutex
	$a int64  `json:"$a"`
	$b []$u `json:"$b,omitempty"`
}

func $do($c chan<- $t, $d time.Duration) {
	select {
	case $c <- $t{$a: $n}:
	case <-time.After($d):
		log.Printf("$also: timed out after %s", $d)
	}
}
"""),
)
_RUST = (
    Template("""/// $say
pub fn $do($a: &[$t], $b: usize) -> Result<Vec<$u>, Error> {
    let mut found = Vec::with_capacity($a.len());
    for each in $a.iter().skip($b) {
        match each.$c() {
            Some($d) if $d > $n => found.push($u::from($d)),
            Some(_) => continue,
            None => return Err(Error::$t { at: $b }),
        }
    }
    Ok(found)
}
"""),
    Template("""#[derive(Debug, Clone)]
pub struct $t<'a> {
    pub $a: &'a str,
    $b: HashMap<String, $u>,
}

impl<'a> $t<'a> {
    pub async fn $do(&mut self, $c: u64) -> Option<$u> {
        let $d = self.$b.get(self.$a)?.clone();
        self.$also($c + $n).await.ok().map(|_| $d)
    }
}
"""),
)
_SQL = (
    Template("""SELECT a.$a, a.$b, COUNT(*) AS total, MAX(b.$c) AS last_$c
FROM $a AS a
LEFT JOIN $d AS b ON b.${a}_id = a.id AND b.$c > $n
WHERE a.$b IN ('$do', '$also') AND a.created_at >= NOW() - INTERVAL '$m days'
GROUP BY a.$a, a.$b
HAVING COUNT(*) > $n
ORDER BY total DESC
LIMIT $m;
"""),
    Template("""CREATE TABLE IF NOT EXISTS $a (
    id BIGSERIAL PRIMARY KEY,
    $b VARCHAR($n) NOT NULL DEFAULT '$also',
    ${c}_id BIGINT REFERENCES $c (id) ON DELETE CASCADE,
    created_at TIMESTAMP NOT NULL
);
CREATE INDEX ${a}_$b ON $a ($b, created_at);
"""),
    Template("""UPDATE $a SET $b = $b + $n, updated_at = NOW()
WHERE id IN (SELECT ${a}_id FROM $c WHERE $d IS NOT NULL AND $d < $m);
"""),
)
_JAVA = (
    Template("""/** $say */
public List<$t> $do(Map<String, $u> $a, int $b) throws IOException {
    List<$t> found = new ArrayList<>();
    for (Map.Entry<String, $u> each : $a.entrySet()) {
        if (each.getValue() == null || found.size() >= $b) {
            throw new IllegalStateException("$c: " + each.getKey());
        }
        found.add($also(each.getValue(), $n));
    }
    return found;
}
"""),
    Template("""@Override
public Optional<$t> $do(final String $a) {
    return $b.stream()
        .filter(each -> each.get$u().equals($a))
        .map(each -> new $t(each, $n))
        .findFirst();
}
"""),
)

STYLES: dict[str, Style] = {
    "python": Style("# ", False, _PYTHON),
    "javascript": Style("// ", True, _JAVASCRIPT),
    "go": Style("// ", True, _GO),
    "rust": Style("// ", False, _RUST),
    "sql": Style("-- ", False, _SQL),
    "java": Style("// ", True, _JAVA),
}
