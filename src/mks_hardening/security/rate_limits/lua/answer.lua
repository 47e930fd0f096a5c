-- The count after hits were removed: what the caller knows of the key from now on.
return (answer_of(limits))
