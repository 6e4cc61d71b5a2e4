package dsn

import "relayd/relay"

// explanation is two sentences for people: what happened and what to do.
type explanation struct{ what, todo say }

// explanations by subject and detail of the enhanced status (RFC 3463, and the registry that
// grew from it). They must be true of any server that uses the code, not only of the usual one.
var explanations = map[[2]int]explanation{
	{1, 0}: {say{"The address was refused.", "Die Adresse wurde abgelehnt.", "L'adresse a été refusée.", "La dirección fue rechazada."}, checkAddress},
	{1, 1}: {say{"There is no such mailbox.", "Dieses Postfach gibt es nicht.", "Cette boîte n'existe pas.", "Ese buzón no existe."}, checkAddress},
	{1, 2}: {say{"The domain of the address does not exist or does not take mail.", "Die Domain der Adresse gibt es nicht, oder sie nimmt keine E-Mail an.",
		"Le domaine de l'adresse n'existe pas ou n'accepte pas de courrier.", "El dominio de la dirección no existe o no acepta correo."}, checkDomain},
	{1, 3}: {say{"The address is not in a form that the other server understands.", "Die Adresse hat keine Form, die der andere Server versteht.",
		"L'adresse n'est pas sous une forme que l'autre serveur comprend.", "La dirección no tiene una forma que el otro servidor entienda."}, checkAddress},
	{1, 4}: {say{"The address belongs to more than one mailbox.", "Die Adresse gehört zu mehr als einem Postfach.",
		"L'adresse correspond à plusieurs boîtes.", "La dirección corresponde a más de un buzón."},
		say{"Ask the recipient for the exact address.", "Fragen Sie den Empfänger nach der genauen Adresse.",
			"Demandez l'adresse exacte au destinataire.", "Pida la dirección exacta al destinatario."}},
	{1, 6}: {say{"The mailbox has moved and left no new address.", "Das Postfach ist umgezogen, ohne eine neue Adresse zu hinterlassen.",
		"La boîte a déménagé sans laisser de nouvelle adresse.", "El buzón se ha mudado sin dejar dirección nueva."},
		say{"Ask the recipient for the new address.", "Fragen Sie den Empfänger nach der neuen Adresse.",
			"Demandez la nouvelle adresse au destinataire.", "Pida la dirección nueva al destinatario."}},
	{1, 7}: {say{"The other server found fault with your address as the sender.", "Der andere Server hat an Ihrer Adresse als Absender etwas auszusetzen.",
		"L'autre serveur trouve à redire à votre adresse d'expéditeur.", "El otro servidor pone reparos a su dirección como remitente."}, askPostmaster},
	{1, 8}: {say{"The other server does not accept mail from your address.", "Der andere Server nimmt von Ihrer Adresse keine E-Mail an.",
		"L'autre serveur n'accepte pas de courrier de votre adresse.", "El otro servidor no acepta correo de su dirección."}, askPostmaster},
	{1, 10}: {say{"The domain of the address states that it takes no mail at all.", "Die Domain der Adresse erklärt, dass sie gar keine E-Mail annimmt.",
		"Le domaine de l'adresse déclare qu'il n'accepte aucun courrier.", "El dominio de la dirección declara que no acepta ningún correo."}, checkDomain},
	{2, 0}: {say{"The mailbox cannot take the message.", "Das Postfach kann die Nachricht nicht annehmen.",
		"La boîte ne peut pas recevoir le message.", "El buzón no puede recibir el mensaje."}, askRecipient},
	{2, 1}: {say{"The mailbox is switched off.", "Das Postfach ist abgeschaltet.", "La boîte est désactivée.", "El buzón está desactivado."}, askRecipient},
	{2, 2}: {say{"The mailbox is full.", "Das Postfach ist voll.", "La boîte est pleine.", "El buzón está lleno."},
		say{"Tell the recipient by another way, and send the message again when there is room.",
			"Sagen Sie es dem Empfänger auf anderem Weg, und senden Sie die Nachricht noch einmal, wenn wieder Platz ist.",
			"Prévenez le destinataire par un autre moyen, et renvoyez le message quand il y aura de la place.",
			"Avise al destinatario por otro medio, y envíe el mensaje otra vez cuando haya sitio."}},
	{2, 3}: {say{"The message is larger than the mailbox accepts.", "Die Nachricht ist größer, als das Postfach erlaubt.",
		"Le message est plus grand que la boîte ne l'accepte.", "El mensaje es más grande de lo que el buzón acepta."}, makeSmaller},
	{2, 4}: {say{"The address is a mailing list that could not be expanded.", "Die Adresse ist eine Verteilerliste, die sich nicht auflösen ließ.",
		"L'adresse est une liste de diffusion qui n'a pas pu être développée.", "La dirección es una lista de correo que no se pudo expandir."}, askRecipient},
	{3, 0}: {say{"A mail server on the way had a fault of its own.", "Ein Mailserver auf dem Weg hatte selbst eine Störung.",
		"Un serveur de messagerie sur le chemin a eu une panne.", "Un servidor de correo del camino tuvo un fallo propio."},
		say{"Send the message again; if that fails too, pass this report on to the people who look after your mail.",
			"Senden Sie die Nachricht noch einmal; misslingt auch das, geben Sie diesen Bericht an die weiter, die sich um Ihre E-Mail kümmern.",
			"Renvoyez le message ; si cela échoue aussi, transmettez ce rapport aux personnes qui s'occupent de votre messagerie.",
			"Envíe el mensaje otra vez; si también falla, pase este informe a quienes se ocupan de su correo."}},
	{3, 1}: {say{"The other server has no room for mail.", "Der andere Server hat keinen Platz für E-Mail.",
		"L'autre serveur n'a plus de place pour le courrier.", "El otro servidor no tiene sitio para correo."}, sendLater},
	{3, 2}: {say{"The other server is not accepting mail at present.", "Der andere Server nimmt zurzeit keine E-Mail an.",
		"L'autre serveur n'accepte pas de courrier pour le moment.", "El otro servidor no acepta correo en este momento."}, sendLater},
	{3, 3}: {say{"The other server lacks a feature that the message needs.", "Dem anderen Server fehlt etwas, das die Nachricht braucht.",
		"Il manque à l'autre serveur une fonction dont le message a besoin.", "Al otro servidor le falta una función que el mensaje necesita."}, askPostmaster},
	{3, 4}: {say{"The message is larger than the other server accepts.", "Die Nachricht ist größer, als der andere Server erlaubt.",
		"Le message est plus grand que l'autre serveur ne l'accepte.", "El mensaje es más grande de lo que el otro servidor acepta."}, makeSmaller},
	{4, 1}: {say{"The other server did not answer.", "Der andere Server hat nicht geantwortet.",
		"L'autre serveur n'a pas répondu.", "El otro servidor no respondió."}, sendLater},
	{4, 2}: {say{"The connection to the other server broke off.", "Die Verbindung zum anderen Server ist abgebrochen.",
		"La connexion à l'autre serveur a été interrompue.", "Se cortó la conexión con el otro servidor."}, sendLater},
	{4, 3}: {say{"The name service that tells where the mail goes did not answer.", "Der Namensdienst, der sagt, wohin die E-Mail geht, hat nicht geantwortet.",
		"Le service de noms qui indique où va le courrier n'a pas répondu.", "El servicio de nombres que dice adónde va el correo no respondió."}, sendLater},
	{4, 4}: {say{"No way to the domain of the address was found.", "Es fand sich kein Weg zur Domain der Adresse.",
		"Aucun chemin vers le domaine de l'adresse n'a été trouvé.", "No se encontró ningún camino al dominio de la dirección."}, checkDomain},
	{4, 5}: {say{"The other server is too busy.", "Der andere Server ist überlastet.", "L'autre serveur est surchargé.", "El otro servidor está saturado."}, sendLater},
	{4, 6}: loop,
	{4, 7}: {say{"The message was tried again and again, without success.", "Die Zustellung wurde immer wieder versucht, ohne Erfolg.",
		"La remise a été tentée plusieurs fois, sans succès.", "La entrega se intentó una y otra vez, sin éxito."}, sendLater},
	{5, 0}: {say{"The other server and ours did not understand each other.", "Der andere Server und unserer haben sich nicht verstanden.",
		"L'autre serveur et le nôtre ne se sont pas compris.", "El otro servidor y el nuestro no se entendieron."}, askPostmaster},
	{5, 3}: {say{"The message has more recipients than the other server accepts.", "Die Nachricht hat mehr Empfänger, als der andere Server erlaubt.",
		"Le message a plus de destinataires que l'autre serveur n'en accepte.", "El mensaje tiene más destinatarios de los que el otro servidor acepta."},
		say{"Send it to fewer people at a time.", "Senden Sie sie an weniger Empfänger auf einmal.",
			"Envoyez-le à moins de personnes à la fois.", "Envíelo a menos personas a la vez."}},
	{6, 0}: {say{"The other server found fault with the form of the message.", "Der andere Server hat an der Form der Nachricht etwas auszusetzen.",
		"L'autre serveur trouve à redire à la forme du message.", "El otro servidor pone reparos a la forma del mensaje."}, askPostmaster},
	{6, 3}: {say{"The other server cannot take the characters that the message uses.", "Der andere Server kann die Zeichen nicht annehmen, die in der Nachricht stehen.",
		"L'autre serveur ne peut pas recevoir les caractères du message.", "El otro servidor no puede recibir los caracteres del mensaje."}, askPostmaster},
	{6, 7}: {say{"The other server cannot take addresses with other than English letters.", "Der andere Server kann nur Adressen mit englischen Buchstaben annehmen.",
		"L'autre serveur n'accepte que des adresses en lettres anglaises.", "El otro servidor solo acepta direcciones con letras inglesas."},
		say{"Ask the recipient for an address in plain English letters.", "Bitten Sie den Empfänger um eine Adresse ohne Umlaute und andere besondere Buchstaben.",
			"Demandez au destinataire une adresse sans accents ni autres lettres particulières.", "Pida al destinatario una dirección sin acentos ni otras letras especiales."}},
	{7, 0}: {refusedByRule, readReason},
	{7, 1}: {refusedByRule, readReason},
	{7, 2}: {say{"You may not write to this mailing list.", "Sie dürfen an diese Verteilerliste nicht schreiben.",
		"Vous ne pouvez pas écrire à cette liste de diffusion.", "Usted no puede escribir a esta lista de correo."},
		say{"Ask the owner of the list.", "Fragen Sie, wer die Liste führt.", "Adressez-vous au responsable de la liste.", "Pregunte a quien lleva la lista."}},
	{7, 8}: {say{"Our server could not log in at the next server.", "Unser Server konnte sich beim nächsten nicht anmelden.",
		"Notre serveur n'a pas pu s'authentifier auprès du suivant.", "Nuestro servidor no pudo autenticarse en el siguiente."}, askPostmaster},
	{7, 10}: {say{"A required encryption was not available.", "Eine verlangte Verschlüsselung war nicht verfügbar.",
		"Un chiffrement exigé n'était pas disponible.", "Un cifrado exigido no estaba disponible."}, askPostmaster},
	{7, 20}: {say{"The message was refused because its DKIM signature did not pass.", "Die Nachricht wurde abgelehnt, weil ihre DKIM-Signatur nicht gültig war.",
		"Le message a été refusé parce que sa signature DKIM n'était pas valable.", "El mensaje fue rechazado porque su firma DKIM no era válida."}, askPostmaster},
	{7, 23}: {say{"The message was refused because SPF does not allow our server to send for your domain.", "Die Nachricht wurde abgelehnt, weil unser Server nach SPF nicht für Ihre Domain senden darf.",
		"Le message a été refusé parce que SPF n'autorise pas notre serveur à envoyer pour votre domaine.", "El mensaje fue rechazado porque SPF no permite a nuestro servidor enviar en nombre de su dominio."}, askPostmaster},
	{7, 25}: {say{"The message was refused because our address has no valid name in the DNS.", "Die Nachricht wurde abgelehnt, weil unsere Adresse keinen gültigen Namen im DNS hat.",
		"Le message a été refusé parce que notre adresse n'a pas de nom valable dans le DNS.", "El mensaje fue rechazado porque nuestra dirección no tiene un nombre válido en el DNS."}, askPostmaster},
	{7, 26}: {say{"The message was refused because it could not be shown to come from your domain.", "Die Nachricht wurde abgelehnt, weil sich nicht zeigen ließ, dass sie von Ihrer Domain kommt.",
		"Le message a été refusé parce qu'on n'a pas pu établir qu'il vient de votre domaine.", "El mensaje fue rechazado porque no se pudo comprobar que viene de su dominio."}, askPostmaster},
	{7, 27}: {say{"The message was refused because the domain of your address takes no mail.", "Die Nachricht wurde abgelehnt, weil die Domain Ihrer Adresse keine E-Mail annimmt.",
		"Le message a été refusé parce que le domaine de votre adresse n'accepte pas de courrier.", "El mensaje fue rechazado porque el dominio de su dirección no acepta correo."}, askPostmaster},
	{7, 28}: {say{"The other server thinks that too much mail comes from here.", "Der andere Server meint, dass von hier zu viel E-Mail kommt.",
		"L'autre serveur estime que trop de courrier vient d'ici.", "El otro servidor considera que desde aquí llega demasiado correo."}, sendLater},
	{7, 30}: {say{"The message was to be kept encrypted all the way, which the other server does not promise.", "Die Nachricht sollte auf dem ganzen Weg verschlüsselt bleiben, was der andere Server nicht zusagt.",
		"Le message devait rester chiffré sur tout le chemin, ce que l'autre serveur ne promet pas.", "El mensaje debía permanecer cifrado en todo el camino, lo que el otro servidor no promete."},
		say{"Send it without asking for that, or reach the recipient by another way.", "Senden Sie sie ohne diese Forderung, oder erreichen Sie den Empfänger auf anderem Weg.",
			"Envoyez-le sans cette exigence, ou joignez le destinataire par un autre moyen.", "Envíelo sin esa exigencia, o avise al destinatario por otro medio."}},
	// 5.4.6 is the standard's; some servers say 5.4.14 or 5.7.28 for a loop, in their text alone.
	{4, 14}: loop,
}

var (
	refusedByRule = say{"The other server refused the message by its rules.", "Der andere Server hat die Nachricht nach seinen Regeln abgelehnt.",
		"L'autre serveur a refusé le message selon ses règles.", "El otro servidor rechazó el mensaje según sus reglas."}
	loop = explanation{say{"The message went round in a circle between mail servers.", "Die Nachricht lief zwischen Mailservern im Kreis.",
		"Le message a tourné en rond entre des serveurs de messagerie.", "El mensaje dio vueltas entre servidores de correo."}, askPostmaster}
	notPassedOn = explanation{say{"The message could not be passed on.", "Die Nachricht konnte nicht weitergegeben werden.",
		"Le message n'a pas pu être transmis.", "El mensaje no se pudo transmitir."}, askPostmaster}
	justRefused = explanation{say{"The other server refused the message.", "Der andere Server hat die Nachricht abgelehnt.",
		"L'autre serveur a refusé le message.", "El otro servidor rechazó el mensaje."}, readReason}
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
		return notPassedOn
	}
	return justRefused
}
