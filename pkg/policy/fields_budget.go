// SPDX-License-Identifier: Apache-2.0

package policy

var objBudget = &object{"budget", "A limit on what the model calls of its principals may cost in a window of time. A call must fit into every hard budget that counts it, or it is refused; a soft one counts and alerts.", []field{
	{name: "id", typ: "string", required: true, doc: "Name of the budget, unique in its document. What was spent is kept under scope, document and id: another name begins at nothing."},
	{name: "limit", typ: "string", required: true, hint: "limit: 500 USD", doc: "How much, such as `500 USD` or `0.25 USD`."},
	{name: "window", typ: "string", required: true, hint: "window: month", doc: "A calendar window (`hour`, `day`, `week` from Monday, `month`, `quarter`, `year`), or a rolling one such as `24h` or `30d`, of 1h to 366d. A rolling one moves on in 32 steps and counts the oldest in full until it is out."},
	{name: "zone", typ: "string", doc: "Time zone of a calendar window, such as `Europe/Berlin`; `UTC` when absent."},
	{name: "hard", typ: "boolean", doc: "`true` (default): a call that does not fit is refused. `false`: it is counted only."},
	{name: "per", typ: "list of strings", doc: "What has the limit each on its own: `org`, `team`, `agent`, `sandbox`, `model`. All together when absent."},
	{name: "for", typ: "selector", doc: "Narrows the budget to these principals below the document's scope."},
	{name: "models", typ: "list of models", doc: "Only calls of these models count, by name or a prefix such as `claude-*`; every model when absent."},
	{name: "alerts", typ: "list of numbers", doc: "Percentages of the limit at which an event is raised, once in a window each; 50, 80 and 100 when absent."},
	{name: "onAlert", typ: "list of budget action", doc: "What changes from a percentage on."},
	{name: "maxOutput", typ: "number", doc: "Most output tokens of a call whose client sets no cap."},
}}

var objBudgetAction = &object{"budget action", "What happens from a percentage of the limit on. Of several the strictest holds.", []field{
	{name: "at", typ: "number", required: true, doc: "Percent of the limit, 1 to 100, spent or reserved by calls under way."},
	{name: "action", typ: "string", required: true, doc: "`notify` (an event), `downgrade` (a lower tier), `require-approval` (people decide about each call) or `block`."},
}}
