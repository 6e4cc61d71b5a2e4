package dsn

import "strconv"

// Languages are those in which the part for people is written, the first by default. What programs
// read is never translated.
var Languages = []string{"en", "de", "fr", "es"}

// say is one sentence in each of Languages.
type say [4]string

// language is an index into say; 0 for a tag that is not one of Languages.
func language(tag string) int {
	for i, known := range Languages {
		if known == tag {
			return i
		}
	}
	return 0
}

// The table of everything that people read. %s is filled in from the left.
var (
	sayServer  = say{"This is the mail server %s.", "Hier schreibt der Mailserver %s.", "Ici le serveur de messagerie %s.", "Le escribe el servidor de correo %s."}
	sayLetter  = say{"Your message", "Ihre Nachricht", "Votre message", "Su mensaje"}
	sayOf      = say{"of", "vom", "du", "del"}
	sayAlias   = say{"(you wrote to <%s>)", "(Sie schrieben an <%s>)", "(vous avez écrit à <%s>)", "(usted escribió a <%s>)"}
	sayReason  = say{"Reason:", "Grund:", "Raison :", "Motivo:"}
	saySaid    = say{"%s said:", "%s sagte:", "%s a répondu :", "%s respondió:"}
	sayNumber  = say{"Number of the message here: %s", "Nummer der Nachricht hier: %s", "Numéro du message ici : %s", "Número del mensaje aquí: %s"}
	saySeveral = say{"%s recipients", "%s Empfänger", "%s destinataires", "%s destinatarios"}

	sayDelay = say{"We could not deliver the message so far and keep trying", "Wir konnten die Nachricht bisher nicht zustellen und versuchen es weiter",
		"Nous n'avons pas encore pu remettre le message et continuons d'essayer", "Todavía no hemos podido entregar el mensaje y seguimos intentándolo"}
	sayUntil = say{" until %s", ", bis %s", ", jusqu'au %s", ", hasta el %s"}
	sayNext  = say{", next at about %s", ", das nächste Mal gegen %s", ", la prochaine fois vers %s", ", la próxima vez hacia las %s"}
	sayWait  = say{"There is nothing for you to do; do not send it again.", "Sie brauchen nichts zu tun; senden Sie sie nicht noch einmal.",
		"Vous n'avez rien à faire ; ne le renvoyez pas.", "No tiene que hacer nada; no lo envíe otra vez."}
	sayTried = say{"We tried%s without success and have given up.", "Wir haben es%s ohne Erfolg versucht und aufgegeben.",
		"Nous avons essayé%s sans succès et avons abandonné.", "Lo hemos intentado%s sin éxito y hemos desistido."}
	sayFor  = say{" for %s %s", " %s %s lang", " pendant %s %s", " durante %s %s"}
	sayDays = say{"days", "Tage", "jours", "días"}
	sayHour = say{"hours", "Stunden", "heures", "horas"}
	sayMins = say{"minutes", "Minuten", "minutes", "minutos"}

	// For the postmaster, about a letter whose sender is not told.
	saySteadSubject = say{"A message to %s was lost, and its sender not told", "Eine Nachricht an %s ging verloren, ohne dass ihr Absender es erfährt",
		"Un message à %s est perdu, et son expéditeur n'en sait rien", "Un mensaje a %s se perdió, y su remitente no lo sabe"}
	sayStead = say{"A message came from <%s>, who is not one of us, and had to go on to another server. Where it could not be delivered its sender is not told, because anybody can write that address into a message: you hear of it instead.",
		"Eine Nachricht kam von <%s>, nicht von uns, und musste an einen anderen Server weitergehen. Dass sie nicht zugestellt werden konnte, erfährt der Absender nicht, weil jeder diese Adresse in eine Nachricht schreiben kann: Sie erfahren es an seiner Stelle.",
		"Un message est venu de <%s>, qui n'est pas des nôtres, et devait passer à un autre serveur. Son expéditeur n'apprend pas qu'il n'a pas pu être remis, car n'importe qui peut écrire cette adresse dans un message : vous l'apprenez à sa place.",
		"Llegó un mensaje de <%s>, que no es de los nuestros, y debía seguir a otro servidor. Su remitente no se entera de que no se pudo entregar, porque cualquiera puede escribir esa dirección en un mensaje: se entera usted en su lugar."}
	sayMute = say{"A message came from <%s>, an address that takes no mail, as a scanner's may be. Where it could not be delivered nobody else can be told: you hear of it instead.",
		"Eine Nachricht kam von <%s>, einer Adresse, die keine Post annimmt, etwa der eines Scanners. Dass sie nicht zugestellt werden konnte, kann niemand sonst erfahren: Sie erfahren es an seiner Stelle.",
		"Un message est venu de <%s>, une adresse qui ne reçoit pas de courrier, celle d'un scanner par exemple. Personne d'autre ne peut apprendre qu'il n'a pas pu être remis : vous l'apprenez à sa place.",
		"Llegó un mensaje de <%s>, una dirección que no recibe correo, como puede ser la de un escáner. Nadie más puede enterarse de que no se pudo entregar: se entera usted en su lugar."}
	sayIts = say{"The message", "Die Nachricht", "Le message", "El mensaje"}

	sayArrived = say{"The message is in the mailbox or with the server in charge of it. There is nothing for you to do.",
		"Die Nachricht liegt im Postfach oder bei dem Server, der dafür zuständig ist. Sie brauchen nichts zu tun.",
		"Le message est dans la boîte ou chez le serveur qui en est chargé. Vous n'avez rien à faire.",
		"El mensaje está en el buzón o en el servidor que se encarga de él. No tiene que hacer nada."}
	sayTaken = say{"The next server took the message. There is nothing for you to do.",
		"Der nächste Server hat die Nachricht angenommen. Sie brauchen nichts zu tun.",
		"Le serveur suivant a accepté le message. Vous n'avez rien à faire.",
		"El siguiente servidor aceptó el mensaje. No tiene que hacer nada."}
)

// subjects by kind; %s is the recipient.
var subjects = map[Kind]say{
	Failed: {"Your message to %s could not be delivered", "Ihre Nachricht an %s konnte nicht zugestellt werden",
		"Votre message à %s n'a pas pu être remis", "Su mensaje a %s no se pudo entregar"},
	Delayed: {"Your message to %s is delayed", "Ihre Nachricht an %s verspätet sich",
		"Votre message à %s est retardé", "Su mensaje a %s se retrasa"},
	Delivered: {"Your message to %s was delivered", "Ihre Nachricht an %s wurde zugestellt",
		"Votre message à %s a été remis", "Su mensaje a %s fue entregado"},
	Relayed: {"Your message to %s was passed on", "Ihre Nachricht an %s wurde weitergegeben",
		"Votre message à %s a été transmis", "Su mensaje a %s fue transmitido"},
	AfterAll: {"Your message to %s was delivered after all", "Ihre Nachricht an %s wurde doch noch zugestellt",
		"Votre message à %s a finalement été remis", "Su mensaje a %s fue entregado al fin"},
}

// openings by kind; they go on after the name of the letter and end before the recipients.
var openings = map[Kind]say{
	Failed: {" could not be delivered to:", " konnte nicht zugestellt werden an:", " n'a pas pu être remis à :", " no se pudo entregar a:"},
	Delayed: {" has not been delivered yet to:", " ist noch nicht zugestellt an:",
		" n'a pas encore été remis à :", " no se ha entregado todavía a:"},
	Delivered: {" was delivered to:", " wurde zugestellt an:", " a été remis à :", " fue entregado a:"},
	Relayed: {" was passed on to a server that sends no reports of its own, for:",
		" wurde an einen Server weitergegeben, der selbst keine Berichte schickt, für:",
		" a été transmis à un serveur qui n'envoie pas lui-même de rapports, pour :",
		" fue transmitido a un servidor que no envía informes por su cuenta, para:"},
	AfterAll: {", which was delayed, has now been delivered to the mail server of:",
		", die sich verspätet hatte, wurde jetzt zugestellt an den Mailserver von:",
		", qui était retardé, est maintenant remis au serveur de messagerie de :",
		", que se había retrasado, ya fue entregado al servidor de correo de:"},
}

// What people can do, beside what stands in the table of explanations.
var (
	checkAddress = say{"Check the address for a typing mistake and send the message again.",
		"Prüfen Sie die Adresse auf Tippfehler und senden Sie die Nachricht noch einmal.",
		"Vérifiez qu'il n'y a pas de faute de frappe dans l'adresse et renvoyez le message.",
		"Compruebe que la dirección no tenga errores y envíe el mensaje otra vez."}
	checkDomain = say{"Check the part after the @ for a typing mistake, or ask the recipient for another address.",
		"Prüfen Sie den Teil hinter dem @ auf Tippfehler, oder bitten Sie den Empfänger um eine andere Adresse.",
		"Vérifiez la partie après le @, ou demandez une autre adresse au destinataire.",
		"Compruebe la parte que sigue a la @, o pida otra dirección al destinatario."}
	askRecipient = say{"Ask the recipient by another way for an address that works.",
		"Fragen Sie den Empfänger auf anderem Weg nach einer Adresse, die funktioniert.",
		"Demandez au destinataire, par un autre moyen, une adresse qui fonctionne.",
		"Pida al destinatario, por otro medio, una dirección que funcione."}
	askPostmaster = say{"Pass this report on to the people who look after your mail.",
		"Geben Sie diesen Bericht an die weiter, die sich um Ihre E-Mail kümmern.",
		"Transmettez ce rapport aux personnes qui s'occupent de votre messagerie.",
		"Pase este informe a quienes se ocupan de su correo."}
	makeSmaller = say{"Send a smaller message, or share the large files by other means.",
		"Senden Sie eine kleinere Nachricht, oder geben Sie die großen Dateien auf anderem Weg weiter.",
		"Envoyez un message plus petit, ou partagez les gros fichiers par un autre moyen.",
		"Envíe un mensaje más pequeño, o comparta los archivos grandes por otro medio."}
	sendLater = say{"Send the message again later, or reach the recipient by another way.",
		"Senden Sie die Nachricht später noch einmal, oder erreichen Sie den Empfänger auf anderem Weg.",
		"Renvoyez le message plus tard, ou joignez le destinataire par un autre moyen.",
		"Envíe el mensaje más tarde, o comuníquese con el destinatario por otro medio."}
	readReason = say{"Read its reason below; if it says nothing that you can change, pass this report on to the people who look after your mail.",
		"Lesen Sie unten seinen Grund; nennt er nichts, was Sie ändern können, geben Sie diesen Bericht an die weiter, die sich um Ihre E-Mail kümmern.",
		"Lisez sa raison ci-dessous ; si elle ne dit rien que vous puissiez changer, transmettez ce rapport aux personnes qui s'occupent de votre messagerie.",
		"Lea abajo su motivo; si no dice nada que usted pueda cambiar, pase este informe a quienes se ocupan de su correo."}
)

// months are written out in dates; English dates come from package time.
var months = [...][12]string{
	1: {"Januar", "Februar", "März", "April", "Mai", "Juni", "Juli", "August", "September", "Oktober", "November", "Dezember"},
	2: {"janvier", "février", "mars", "avril", "mai", "juin", "juillet", "août", "septembre", "octobre", "novembre", "décembre"},
	3: {"enero", "febrero", "marzo", "abril", "mayo", "junio", "julio", "agosto", "septiembre", "octubre", "noviembre", "diciembre"},
}

// dates are the forms of a date: day, month, year, time of day with its zone.
var dates = say{"%s %s %s, %s", "%s. %s %s, %s", "%s %s %s, %s", "%s de %s de %s, %s"}

func number(n int) string { return strconv.Itoa(n) }
