// SPDX-License-Identifier: Apache-2.0

package inference

import (
	"encoding/json"
	"strings"
	"testing"
)

// The counts of o200k_base were made once with tiktoken-go/tokenizer v0.10.0.
var counted = []struct {
	name, text string
	tokens     uint64
}{
	{"English", "Ringfence is a privileged node agent that lets people run AI agents they do not trust. Every agent runs in a sandbox whose network is closed in the kernel, and whose model calls go through a gateway that routes, meters and limits them.", 49},
	{"German", "Dieses System dient dazu, Agenten sicher auszuführen, denen man nicht vertraut. Das Netz ist im Kern geschlossen, und jeder Aufruf eines Modells läuft über das Gateway, das Tokens und Kosten zählt. Fasse das folgende Dokument zusammen und nenne die drei wichtigsten Punkte für größere Betriebe.\n", 60},
	{"Russian", "Эта система предназначена для безопасного запуска агентов, которым нельзя доверять. Сеть закрыта в ядре, а каждый вызов модели проходит через шлюз, который считает токены и стоимость. Кратко изложите следующий документ и назовите три самых важных вывода.\n", 59},
	{"Chinese", "人工智能代理可以在您的计算机上运行程序、读取文件并访问网络。我们需要一种可靠的方法来限制它们能够做什么，同时不影响它们完成工作的能力。本系统在内核中关闭网络，并通过网关路由每一次模型调用。请总结以下文档的主要内容，并列出三个最重要的建议。\n", 74},
	{"Japanese", "このシステムは、信頼できないエージェントを安全に実行するためのものです。ネットワークはカーネルで閉じられ、モデルの呼び出しはすべてゲートウェイを経由します。次の文章を要約し、重要な点を三つ挙げてください。\n", 78},
	{"Korean", "이 시스템은 신뢰할 수 없는 에이전트를 안전하게 실행하기 위한 것입니다. 네트워크는 커널에서 닫혀 있으며 모든 모델 호출은 게이트웨이를 통해 전달됩니다. 다음 문서를 요약하고 중요한 점 세 가지를 알려 주세요.\n", 56},
	{"Arabic", "صمم هذا النظام لتشغيل الوكلاء غير الموثوق بهم بأمان. الشبكة مغلقة في النواة وكل استدعاء للنموذج يمر عبر البوابة التي تحسب الرموز والتكلفة. لخص المستند التالي واذكر أهم ثلاث نقاط.\n", 60},
	{"emoji", "🎉🚀🔥✨👍😂❤️🙏💯😊 great job 🎉🎉🎉 team 👩‍💻👨‍👩‍👧‍👦🏳️‍🌈\n", 45},
	{"code", "func (t *tape) member(i uint32, name string) (uint32, bool) {\n\tvar at uint32\n\tif t.nodes[i].kind != kindObject {\n\t\treturn 0, false\n\t}\n\tt.children(i, func(c uint32) bool {\n\t\tif t.called(c, t.folded(c), name) {\n\t\t\tat = c\n\t\t}\n\t\treturn true\n\t})\n\treturn at, at != 0\n}\n", 94},
	{"JSON", `{"id":"req_01","items":[{"sku":"A-1004","qty":3,"price":"12.50"},{"sku":"B-2210","qty":1,"price":"7.00"}],"note":null,"paid":true}`, 53},
	{"base64", "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJDFtq9ZpQxTnB7aGmL0uYkV3eRwC1oHs8JdXzK5iMvN2bQ4tPfWgAyU6EhSlOjD", 84},
	{"numbers", "577090037,205868372,959871012,14552843,837619901,300917654\n112358132,134711235,813213455,891442333,776109871,597258418\n", 48},
}

func TestEstimateIsNearATokenizers(t *testing.T) {
	for _, c := range counted {
		got := textTokens(c.text)
		if r := float64(got) / float64(c.tokens); r < 0.8 || r > 1.65 {
			t.Errorf("%s: %d, a tokenizer says %d (%.2f times)", c.name, got, c.tokens, r)
		}
	}
}

// What stands in JSON is counted as about what it says, however it is escaped and cut.
func TestEstimateOfEscapedText(t *testing.T) {
	for _, c := range counted {
		b, err := json.Marshal(c.text)
		if err != nil {
			t.Fatal(err)
		}
		var whole counter
		whole.add(b[1 : len(b)-1])
		whole.end()
		if plain := textTokens(c.text); whole.tokens() > plain+plain/5+2 || whole.tokens()+plain/5+2 < plain {
			t.Errorf("%s: %d, plain %d", c.name, whole.tokens(), plain)
		}
		for n := 1; n < 9; n++ {
			var cut counter
			for rest := b[1 : len(b)-1]; len(rest) > 0; {
				k := min(n, len(rest))
				cut.add(rest[:k])
				rest = rest[k:]
			}
			if cut.tokens() != whole.tokens() {
				t.Errorf("%s in pieces of %d: %d, not %d", c.name, n, cut.tokens(), whole.tokens())
			}
		}
	}
	var esc counter
	esc.add([]byte(`\u4eba\u5de5\u667a\u80fd`))
	if n := esc.tokens(); n != 3 {
		t.Errorf("four characters as escapes: %d", n)
	}
}

func TestEstimateOfARequest(t *testing.T) {
	long := strings.Repeat("QUJD", 8000)
	text := strings.Repeat("word ", 1000)
	for _, c := range []struct {
		name, body string
		from, to   uint64
	}{
		{"text", `{"messages":[{"content":"` + text + `"}]}`, 1000, 1700},
		{"a picture as a URL", `{"image_url":{"url":"data:image/png;base64,` + long + `"}}`, pictureTokens, pictureTokens},
		{"a picture in a source", `{"source":{"type":"base64","media_type":"image/png","data":"` + long + `"}}`, pictureTokens, pictureTokens + 10},
		{"a document", `{"source":{"type":"base64","media_type":"application/pdf","data":"` + long + `"}}`, 2000, 2010},
		{"text that calls itself data", `{"content":"data: ` + text + `"}`, 1000, 1700},
		{"text that calls itself encoded", `{"content":"` + strings.Repeat("x", 130) + `data:;base64,` + text + `"}`, 1000, 1700},
		{"two prompts of tokens", `{"prompt":[[1,2,3],[4,5]],"max_tokens":7}`, 5, 5},
		{"a text source", `{"source":{"type":"text","media_type":"text/plain","data":"` + text + `"}}`, 1000, 1700},
	} {
		tp, err := parse([]byte(c.body), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n := requestTokens(&tp); n < c.from || n > c.to {
			t.Errorf("%s: %d, not %d to %d", c.name, n, c.from, c.to)
		}
	}
}

func BenchmarkEstimate(b *testing.B) {
	text := []byte(strings.Repeat(counted[0].text, 20))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		var c counter
		c.add(text)
	}
}
