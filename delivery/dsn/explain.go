package dsn

import "relayd/relay"

// explanation is two sentences for people: what happened and what to do.
type explanation struct{ what, todo string }

// explanations by subject and detail of the enhanced status (RFC 3463, and the registry that
// grew from it). They must be true of any server that uses the code, not only of the usual one.
var explanations = map[[2]int]explanation{
	{1, 0}:  {"The address was refused.", checkAddress},
	{1, 1}:  {"There is no such mailbox.", checkAddress},
	{1, 2}:  {"The domain of the address does not exist or does not take mail.", checkDomain},
	{1, 3}:  {"The address is not in a form that the other server understands.", checkAddress},
	{1, 4}:  {"The address belongs to more than one mailbox.", "Ask the recipient for the exact address."},
	{1, 6}:  {"The mailbox has moved and left no new address.", "Ask the recipient for the new address."},
	{1, 7}:  {"The other server found fault with your address as the sender.", askPostmaster},
	{1, 8}:  {"The other server does not accept mail from your address.", askPostmaster},
	{1, 10}: {"The domain of the address states that it takes no mail at all.", checkDomain},
	{2, 0}:  {"The mailbox cannot take the message.", askRecipient},
	{2, 1}:  {"The mailbox is switched off.", askRecipient},
	{2, 2}:  {"The mailbox is full.", "Tell the recipient by another way, and send the message again when there is room."},
	{2, 3}:  {"The message is larger than the mailbox accepts.", makeSmaller},
	{2, 4}:  {"The address is a mailing list that could not be expanded.", askRecipient},
	{3, 0}:  {"A mail server on the way had a fault of its own.", "Send the message again; if that fails too, pass this report on to the people who look after your mail."},
	{3, 1}:  {"The other server has no room for mail.", sendLater},
	{3, 2}:  {"The other server is not accepting mail at present.", sendLater},
	{3, 3}:  {"The other server lacks a feature that the message needs.", askPostmaster},
	{3, 4}:  {"The message is larger than the other server accepts.", makeSmaller},
	{4, 1}:  {"The other server did not answer.", sendLater},
	{4, 2}:  {"The connection to the other server broke off.", sendLater},
	{4, 3}:  {"The name service that tells where the mail goes did not answer.", sendLater},
	{4, 4}:  {"No way to the domain of the address was found.", checkDomain},
	{4, 5}:  {"The other server is too busy.", sendLater},
	{4, 6}:  {loopWhat, loopTodo},
	{4, 7}:  {"The message was tried again and again, without success.", sendLater},
	{5, 0}:  {"The other server and ours did not understand each other.", askPostmaster},
	{5, 3}:  {"The message has more recipients than the other server accepts.", "Send it to fewer people at a time."},
	{6, 0}:  {"The other server found fault with the form of the message.", askPostmaster},
	{6, 3}:  {"The other server cannot take the characters that the message uses.", askPostmaster},
	{6, 7}:  {"The other server cannot take addresses with other than English letters.", "Ask the recipient for an address in plain English letters."},
	{7, 0}:  {policyWhat, policyTodo},
	{7, 1}:  {policyWhat, policyTodo},
	{7, 2}:  {"You may not write to this mailing list.", "Ask the owner of the list."},
	{7, 8}:  {"Our server could not log in at the next server.", askPostmaster},
	{7, 10}: {"A required encryption was not available.", askPostmaster},
	{7, 20}: {"The message was refused because its DKIM signature did not pass.", askPostmaster},
	{7, 23}: {"The message was refused because SPF does not allow our server to send for your domain.", askPostmaster},
	{7, 25}: {"The message was refused because our address has no valid name in the DNS.", askPostmaster},
	{7, 26}: {"The message was refused because it could not be shown to come from your domain.", askPostmaster},
	{7, 27}: {"The message was refused because the domain of your address takes no mail.", askPostmaster},
	{7, 28}: {"The other server thinks that too much mail comes from here.", sendLater},
	// 5.4.6 is the standard's; some servers say 5.4.14 or 5.7.28 for a loop, in their text alone.
	{4, 14}: {loopWhat, loopTodo},
}

const (
	checkAddress  = "Check the address for a typing mistake and send the message again."
	checkDomain   = "Check the part after the @ for a typing mistake, or ask the recipient for another address."
	askRecipient  = "Ask the recipient by another way for an address that works."
	askPostmaster = "Pass this report on to the people who look after your mail."
	makeSmaller   = "Send a smaller message, or share the large files by other means."
	sendLater     = "Send the message again later, or reach the recipient by another way."
	policyWhat    = "The other server refused the message by its rules."
	policyTodo    = "Read its reason below; if it says nothing that you can change, pass this report on to the people who look after your mail."
	loopWhat      = "The message went round in a circle between mail servers."
	loopTodo      = "Pass this report on to the people who look after your mail."
)

// explain finds the sentences for a result. Where the status says nothing, the plain truth is
// that the other server refused.
func explain(res relay.Result) explanation {
	if e, ok := explanations[[2]int{res.Reply.Status[1], res.Reply.Status[2]}]; ok && res.Reply.Status != (relay.Status{}) {
		return e
	}
	switch res.Reply.Status[1] {
	case 1:
		return explanations[[2]int{1, 0}]
	case 2:
		return explanations[[2]int{2, 0}]
	case 7:
		return explanations[[2]int{7, 0}]
	}
	if res.Host == "" {
		return explanation{"The message could not be passed on.", askPostmaster}
	}
	return explanation{"The other server refused the message.", policyTodo}
}
